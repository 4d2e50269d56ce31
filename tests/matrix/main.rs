//! Every paid route times everybody who can pay times everything that can happen: the books are right to the micro, the upstream
//! was asked as often as it should have been, and every limit binds.

mod calls;
mod cells;
mod limits;
mod shop;
