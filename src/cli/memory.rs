//! What is in memory stays there: keys and prompts never end in a core dump, nor in front of another program of the same user.

use std::io;

/// Turns core dumps off for this process. On Linux no program of the same user may look into its memory either, unless it is
/// root: the process is not dumpable (prctl(2), `PR_SET_DUMPABLE`), which also keeps core dumps from programs that collect
/// them whatever the limit says.
///
/// # Errors
/// The system does not let us.
pub fn keep_private() -> io::Result<()> {
    rlimit::setrlimit(rlimit::Resource::CORE, 0, 0)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_written_nowhere_and_shown_to_nobody() {
        keep_private().unwrap();
        assert_eq!(rlimit::Resource::CORE.get().unwrap(), (0, 0), "nor can the limit be raised again");
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
    }
}
