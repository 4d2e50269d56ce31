//! The wire: each pitfall of the HTTP libraries that was ever met, as a promise held against real sockets.

mod answers;
mod connections;
mod crowd;
mod leaving;
mod stall;
mod trouble;
mod upload;
