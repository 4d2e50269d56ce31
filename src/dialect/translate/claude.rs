//! What Claude's generations differ in: how they are told to think, and whether they take a temperature.

use super::conversation::Effort;

/// The smallest budget for thinking that is taken.
const LEAST_BUDGET: u32 = 1024;

/// A generation of the models that speak messages. The earlier ones are all there will ever be; what is not among them is taken
/// for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// Another maker's model: it is told what all makers copied.
    Foreign,
    /// Up to 4.5: thinks within a budget of tokens.
    Early,
    /// 4.6: decides itself how much to think.
    Adaptive,
    /// Later ones do that too, and refuse temperatures and the like.
    Late,
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinks {
    No,
    /// Within so many tokens of its output.
    AsMuchAs(u32),
    WithEffort {
        effort: Effort,
        adaptive: bool,
    },
}

impl Generation {
    /// By the name that the upstream gives the model.
    pub fn of(model: &str) -> Generation {
        let name = model.to_ascii_lowercase().replace('.', "-");
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if !has(&["claude"]) {
            Generation::Foreign
        } else if has(&["-4-6"]) {
            Generation::Adaptive
        } else if has(&["claude-2", "claude-3", "claude-instant", "haiku-4", "sonnet-4", "opus-4"]) && !has(&["-4-7", "-4-8"]) {
            Generation::Early
        } else {
            Generation::Late
        }
    }

    pub fn takes_sampling(self) -> bool {
        self != Generation::Late
    }

    /// How to ask for an effort. A model that is forced to call a tool cannot think; with a budget it also wants back the
    /// thinking that led to the calls whose results come last, which callers of chat do not keep (`may_think`).
    pub fn thinks(self, effort: Effort, output_limit: u32, forced: bool, may_think: bool) -> Thinks {
        let budget = match effort {
            Effort::None => return Thinks::No,
            Effort::Minimal => LEAST_BUDGET,
            Effort::Low => 2 * LEAST_BUDGET,
            Effort::Medium => 8 * LEAST_BUDGET,
            Effort::High => 16 * LEAST_BUDGET,
            Effort::ExtraHigh | Effort::Max => 32 * LEAST_BUDGET,
        };
        match self {
            Generation::Adaptive | Generation::Late => {
                let effort = if effort == Effort::Minimal { Effort::Low } else { effort };
                Thinks::WithEffort { effort, adaptive: !forced }
            }
            // A quarter of the output is left for the answer.
            Generation::Foreign | Generation::Early => match budget.min(output_limit - output_limit.div_ceil(4)) {
                budget if may_think && budget >= LEAST_BUDGET => Thinks::AsMuchAs(budget),
                _ => Thinks::No,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_known_by_its_name_at_any_upstream() {
        for (model, generation) in [
            ("deepseek-v4", Generation::Foreign),
            ("claude-3-7-sonnet-latest", Generation::Early),
            ("anthropic/claude-3.5-haiku", Generation::Early),
            ("claude-sonnet-4-20250514", Generation::Early),
            ("claude-haiku-4-5-20251001", Generation::Early),
            ("anthropic/claude-opus-4.5", Generation::Early),
            ("claude-sonnet-4-6", Generation::Adaptive),
            ("us.anthropic.claude-opus-4-6-v1:0", Generation::Adaptive),
            ("claude-opus-4-7", Generation::Late),
            ("anthropic/claude-opus-4.8", Generation::Late),
            ("claude-sonnet-5", Generation::Late),
            ("claude-haiku-5-5", Generation::Late),
            ("claude-opus-9", Generation::Late),
        ] {
            assert_eq!(Generation::of(model), generation, "{model}");
        }
    }

    #[test]
    fn a_budget_is_never_too_small_and_leaves_room_for_the_answer() {
        let budget = |effort, limit| Generation::Early.thinks(effort, limit, false, true);
        assert_eq!(budget(Effort::High, 64_000), Thinks::AsMuchAs(16_384));
        assert_eq!(budget(Effort::High, 4096), Thinks::AsMuchAs(3072));
        assert_eq!(budget(Effort::Minimal, 64_000), Thinks::AsMuchAs(1024));
        assert_eq!(budget(Effort::High, 1366), Thinks::AsMuchAs(1024));
        assert_eq!(budget(Effort::High, 1365), Thinks::No);
        assert_eq!(budget(Effort::None, 64_000), Thinks::No);
        assert_eq!(Generation::Foreign.thinks(Effort::Max, u32::MAX, false, true), Thinks::AsMuchAs(32_768));
        assert_eq!(Generation::Early.thinks(Effort::High, 64_000, false, false), Thinks::No);
    }
}
