//! What an operator relies on who runs it and sleeps: numbers, health, webhooks, and one line of the log for each sale.

mod bad_days;
mod check;
mod health;
mod lines;
mod numbers;
mod packaging;
mod proxies;
mod shop;
mod small_disk;
mod webhooks;
