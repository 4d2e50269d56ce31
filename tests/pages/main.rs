//! The pages as people see them: Debian's Chromium, wallets that sign for real, real chains, and who holds the money afterwards.

mod bad_inputs;
mod browser;
mod dashboard;
mod files;
mod hostile;
mod operator;
mod practice;
mod serializer;
mod shop;
mod topup;
mod views;
