//! What an operator relies on who runs it and sleeps: numbers, health, webhooks, and one line of the log for each sale.

mod health;
mod lines;
mod numbers;
mod shop;
mod webhooks;
