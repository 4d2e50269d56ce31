"""The chain itself: LiteSVM (the real virtual machine and token programs) with slots, blockhashes, finality and faults."""

import hashlib
import json
import struct
import time
from collections import OrderedDict, deque

from solders.account import Account
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
# Genesis hash, and where USDC stands.
CLUSTERS = {
    "devnet": ("EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG", "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"),
    "mainnet": ("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
}
MAX_AGE = 150  # blocks that a blockhash stays usable
FINAL_DEPTH = 32  # slots until "finalized"
RENT_OF_TOKEN_ACCOUNT = 2_039_280
# A transaction with one of these never gets into a block.
DROPPED = ("AlreadyProcessed", "SignatureFailure", "AccountNotFound", "InsufficientFundsForFee", "SanitizeFailure")


def associated(owner, mint):
    """The token account of `owner` for `mint`."""
    return Pubkey.find_program_address([bytes(owner), bytes(TOKEN), bytes(mint)], ASSOCIATED)[0]


class Chain:
    def __init__(self, cluster, slot_ms):
        self.genesis, mint = CLUSTERS[cluster]
        self.mint = Pubkey.from_string(mint)
        # How old a blockhash may be, and that nothing lands twice, is checked here: slots are ours.
        self.svm = LiteSVM().with_blockhash_check(False).with_transaction_history(0)
        self.slot_ms, self.started, self.base, self.extra = slot_ms, time.monotonic(), 1000, 0
        self.began = int(time.time())  # when the first block was made
        self.slot, self.hashes, self.by_hash = self.base - 1, deque(), {}
        self.landed = OrderedDict()  # signature -> record
        self.messages = set()  # those of the landed: a node knows them again whoever signed
        self.queue = []  # (due slot, transaction): accepted and not landed yet
        self.sent = 0  # sendTransaction calls that were taken
        self.faults = {"dropSends": 0, "delaySlots": 0, "failRequests": 0, "httpStatus": 0, "latencyMs": 0, "paused": 0}
        for _ in range(3):
            self.next_slot()
        self.svm.set_account(self.mint, Account(1_461_600, mint_account(10**15), TOKEN, False, 0))
        self.tick()

    # ---- time

    def next_slot(self):
        self.slot += 1
        blockhash = hashlib.sha256(f"{self.genesis}:{self.slot}".encode()).digest()
        self.hashes.append((self.slot, blockhash))
        self.by_hash[blockhash] = self.slot
        if len(self.hashes) > 301:
            self.by_hash.pop(self.hashes.popleft()[1])
        clock = self.svm.get_clock()
        clock.slot, clock.unix_timestamp = self.slot, int(time.time())
        self.svm.set_clock(clock)

    def tick(self):
        """Brings the slots up to the wall clock, and lands what is due. Slots and blocks are one here."""
        want = self.base + self.extra + int((time.monotonic() - self.started) * 1000 / self.slot_ms)
        if want - self.slot > 400:  # after a long pause nothing older matters
            self.slot = want - 320
        while self.slot < want:
            self.next_slot()
            if self.faults["paused"]:
                continue
            for item in [item for item in self.queue if item[0] <= self.slot]:
                self.queue.remove(item)
                if self.is_fresh(item[1]):
                    self.execute(item[1])

    def is_fresh(self, transaction):
        at = self.by_hash.get(bytes(transaction.message.recent_blockhash))
        return at is not None and self.slot - at <= MAX_AGE

    # ---- transactions

    def is_signed(self, transaction):
        try:
            return all(transaction.verify_with_results())
        except Exception:
            return False

    def simulate(self, transaction, check_signatures, check_age):
        failed = lambda error: {"err": error, "logs": [], "unitsConsumed": 0}
        if check_age and not self.is_fresh(transaction):
            return failed("BlockhashNotFound")
        if bytes(transaction.message) in self.messages:
            return failed("AlreadyProcessed")
        machine = self.svm
        if not check_signatures and not self.is_signed(transaction):
            machine = machine.with_sigverify(False)
        try:
            outcome = json.loads(machine.simulate_transaction(transaction).to_json())
        finally:
            self.svm = self.svm.with_sigverify(True)
        meta = outcome["meta"]
        return {
            "err": outcome.get("err"),
            "logs": meta["logs"],
            "unitsConsumed": meta["compute_units_consumed"],
            "innerInstructions": None,
            "accounts": None,
            "returnData": None,
            "replacementBlockhash": None,
        }

    def take(self, transaction):
        """A node took it from a client: it lands, is late, or is lost, as the faults say."""
        self.sent += 1
        if self.faults["dropSends"] > 0:
            self.faults["dropSends"] -= 1
        elif self.faults["delaySlots"] > 0 or self.faults["paused"]:
            self.queue.append((self.slot + self.faults["delaySlots"], transaction))
        elif self.is_fresh(transaction):
            self.execute(transaction)

    def execute(self, transaction):
        signature, keys = str(transaction.signatures[0]), transaction.message.account_keys
        if bytes(transaction.message) in self.messages:
            return
        before = [self.svm.get_account(key) for key in keys]
        lamports, tokens = [self.lamports(key) for key in keys], self.token_balances(keys)
        outcome = json.loads(self.svm.send_transaction(transaction).to_json())
        error, meta = outcome.get("err"), outcome.get("meta", outcome)
        if error in DROPPED:
            return
        self.messages.add(bytes(transaction.message))
        self.landed[signature] = {
            "slot": self.slot,
            "err": error,
            "time": int(time.time()),
            "bytes": bytes(transaction),
            "accounts": list(zip(keys, before)),
            "fee": meta["fee"],
            "logs": meta["logs"],
            "units": meta["compute_units_consumed"],
            "pre": lamports,
            "post": [self.lamports(key) for key in keys],
            "pre_tokens": tokens,
            "post_tokens": self.token_balances(keys),
        }

    def undo(self, signature):
        """A fork without this transaction wins: what it did has not happened, and it may land again."""
        record = self.landed.pop(signature)
        self.messages.discard(bytes(read(record["bytes"]).message))
        for key, account in record["accounts"]:
            if account is not None and not account.executable:
                self.svm.set_account(key, account)

    def status(self, signature):
        record = self.landed.get(signature)
        if not record:
            return None
        depth = self.slot - record["slot"]
        level = "finalized" if depth >= FINAL_DEPTH else "confirmed" if depth >= 1 else "processed"
        return {
            "slot": record["slot"],
            "confirmations": None if level == "finalized" else depth,
            "err": record["err"],
            "status": {"Ok": None} if record["err"] is None else {"Err": record["err"]},
            "confirmationStatus": level,
        }

    # ---- accounts

    def lamports(self, key):
        return self.svm.get_balance(key) or 0

    def token_balances(self, keys):
        balances = []
        for place, key in enumerate(keys):
            account = self.svm.get_account(key)
            if account and account.owner == TOKEN and len(account.data) == 165:
                mint, owner, amount = struct.unpack_from("<32s32sQ", account.data)
                entry = {"accountIndex": place, "mint": str(Pubkey(mint)), "owner": str(Pubkey(owner))}
                balances.append({**entry, "programId": str(TOKEN), "uiTokenAmount": self.ui(amount, Pubkey(mint))})
        return balances

    def ui(self, amount, mint):
        account = self.svm.get_account(mint)
        decimals = account.data[44] if account and len(account.data) >= 82 else 0
        text = f"{amount / 10**decimals:.{decimals}f}".rstrip("0").rstrip(".") if decimals else str(amount)
        return {"amount": str(amount), "decimals": decimals, "uiAmount": amount / 10**decimals, "uiAmountString": text or "0"}

    def give_tokens(self, owner, amount, mint=None):
        mint = mint or self.mint
        data = struct.pack("<32s32sQ36sB12sQ36s", bytes(mint), bytes(owner), amount, bytes(36), 1, bytes(12), 0, bytes(36))
        self.svm.set_account(associated(owner, mint), Account(RENT_OF_TOKEN_ACCOUNT, data, TOKEN, False, 0))

    def close_tokens(self, owner):
        self.svm.set_account(associated(owner, self.mint), Account(0, b"", Pubkey.default(), False, 0))

    def give_lamports(self, owner, lamports):
        self.svm.set_account(owner, Account(lamports, b"", Pubkey.default(), False, 0))


def mint_account(supply):
    return struct.pack("<I32sQBB36s", 1, bytes(32), supply, 6, 1, bytes(36))


def read(raw):
    """A transaction of exactly these bytes."""
    transaction = VersionedTransaction.from_bytes(raw)
    transaction.sanitize()
    if bytes(transaction) != raw:
        raise ValueError("trailing bytes")
    return transaction
