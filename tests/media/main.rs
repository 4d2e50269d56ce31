//! Embeddings, images, speech and transcriptions over the real binary: what buyers get, whatever goes wrong, and who holds the money.

mod answers;
mod calls;
mod clients;
mod every_call;
mod forms;
mod large;
mod prices;
mod shop;
mod surcharge;
