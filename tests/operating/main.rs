//! What an operator relies on who runs it and sleeps: numbers, health, webhooks, and one line of the log for each sale.

mod bad_days;
mod check;
mod health;
mod installed;
mod lines;
mod numbers;
mod packaging;
mod proxies;
mod service;
mod shop;
mod small_disk;
mod under_load;
mod webhooks;
