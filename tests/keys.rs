//! Keys keep their promises: what was minted works, what was revoked stays revoked, whatever happens to the files.

#[path = "keys/damage.rs"]
mod damage;
#[path = "keys/desk.rs"]
mod desk;
#[path = "keys/full.rs"]
mod full;
#[path = "keys/kill.rs"]
mod kill;
#[path = "keys/pepper.rs"]
mod pepper;
#[path = "keys/promises.rs"]
mod promises;
#[path = "keys/random.rs"]
mod random;
