//! A random life of a ledger on a bad disk: what was done, what was promised, and what may be found after its end.

use farebox::ledger::{Ledger, Options, Recovered};

use super::disk::{Disk, Random, Trouble};
use super::model::Model;
use super::seen::Seen;
use super::steps::{InHand, Said, Step, perform};
use super::{Hands, NOON};

/// What the books may be after a life: the state after any of its steps, from the last one that was promised to be durable.
pub struct History {
    states: Vec<Model>,
    promised: usize,
    /// How many promises were made.
    pub promises: usize,
}

impl History {
    /// A life that begins with these books, which are durable.
    pub fn from(model: Model) -> History {
        History { states: vec![model], promised: 0, promises: 0 }
    }

    pub fn now(&self) -> &Model {
        self.states.last().expect("there is always the beginning")
    }

    /// The books of a ledger that was just started: one of those that may be.
    pub fn found(&self, ledger: &Ledger, hands: &Hands) -> Option<Model> {
        let may_be = self.states[self.promised..].iter().rev();
        may_be.map(|state| state.clone().restarted(hands.now())).find(|state| state.is_written(ledger))
    }
}

/// Lives `steps` steps, or until the ledger stops; says whether it went on to the end. `first` names the first call.
pub fn live(
    ledger: &Ledger,
    hands: &Hands,
    random: &mut Random,
    history: &mut History,
    steps: u128,
    first: u128,
) -> (bool, InHand) {
    let mut in_hand = InHand::nothing(hands);
    for n in first..first + steps {
        let step = Step::choose(&mut |bound| random.below(bound));
        let mut next = history.now().clone();
        let expected = next.take(step, n);
        let said = perform(ledger, &mut in_hand, step, n);
        let promise = match said {
            Said::Refused => {
                assert!(!expected, "step {n}, {step:?}, was refused");
                continue;
            }
            Said::Stopped => {
                // A step whose promise failed may be on the disk all the same.
                history.states.push(next);
                return (false, in_hand);
            }
            Said::Done => None,
            Said::Durable => Some(Ok(())),
            Said::Promised(durable) => Some(durable.wait_blocking()),
        };
        assert!(expected, "step {n}, {step:?}, was done");
        history.states.push(next);
        match promise {
            Some(Ok(())) => {
                history.promised = history.states.len() - 1;
                history.promises += 1;
            }
            Some(Err(_)) => return (false, in_hand),
            None => {}
        }
    }
    (true, in_hand)
}

/// A disk on which a ledger was made; a real one is made beside its place and moved there when it is whole.
pub fn new_ledger() -> Disk {
    let disk = Disk::new(Trouble::None);
    open(&disk, &Hands::at(NOON)).expect("a healthy disk opens").0.close();
    disk
}

pub fn open(disk: &Disk, hands: &Hands) -> Result<(Ledger, Recovered), String> {
    Ledger::open_on(disk.clone(), hands.clock(), Options::default()).map_err(|broken| broken.to_string())
}

/// Opens a disk that works: what was promised is there, nothing is there that was never done, and the books are clean.
/// Returns the books.
pub fn find_the_truth(disk: &Disk, hands: &Hands, history: &History) -> (Ledger, Model) {
    let (ledger, _) = open(disk, hands).unwrap_or_else(|broken| panic!("the ledger does not open: {broken}"));
    let report = ledger.verify().unwrap();
    assert!(report.ok, "{:?}", report.problems);
    let found = history.found(&ledger, hands);
    let model = found.unwrap_or_else(|| panic!("{:?} was promised otherwise: {:?}", Seen::of(&ledger), history.now()));
    assert_eq!((report.receipts, report.key_events), model.counted());
    let house = |name: &str| report.house.get(name).copied().unwrap_or(0);
    assert_eq!((house("sales"), house("bad debt"), house("outgoing")), model.house());
    (ledger, model)
}
