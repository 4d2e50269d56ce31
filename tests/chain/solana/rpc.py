"""The JSON-RPC methods that a payment server and the x402 clients use, in the words of the real node. `dev_` is for tests."""

import base64
import json
import struct

from chain import FINAL_DEPTH, MAX_AGE, TOKEN, associated, read
from solders.hash import Hash
from solders.message import MessageV0, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

# What the real node says after "Transaction simulation failed: ".
WORDS = {
    "BlockhashNotFound": "Blockhash not found",
    "AlreadyProcessed": "This transaction has already been processed",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "SignatureFailure": "Transaction did not pass signature verification",
    "SanitizeFailure": "Transaction failed to sanitize accounts offsets correctly",
}
MEMO = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
TYPE = "solana_transaction::versioned::VersionedTransaction"
NEWEST = ("processed", "confirmed")


class RpcError(Exception):
    def __init__(self, code, message, data=None):
        self.body = {"code": code, "message": message, **({"data": data} if data is not None else {})}


class Methods:
    """Every method is a function of its name; `params` is what the caller sent, `options` its last object."""

    def __init__(self, chain):
        self.chain = chain

    def call(self, name, params):
        method = getattr(self, name, None)
        if name.startswith("_") or name == "call" or not callable(method):
            raise RpcError(-32601, "Method not found")
        options = next((value for value in reversed(params) if isinstance(value, dict)), {})
        return method(params, options)

    def _at(self, value):
        return {"context": {"apiVersion": "3.1.0", "slot": self.chain.slot}, "value": value}

    # ---- the chain

    def getHealth(self, params, options):
        return "ok"

    def getVersion(self, params, options):
        return {"solana-core": "3.1.0", "feature-set": 0}

    def getGenesisHash(self, params, options):
        return self.chain.genesis

    def getSlot(self, params, options):
        return self.chain.slot - (0 if options.get("commitment") in NEWEST else FINAL_DEPTH)

    getBlockHeight = getSlot

    def getEpochInfo(self, params, options):
        slot = self.getSlot(params, options)
        return {"absoluteSlot": slot, "blockHeight": slot, "epoch": 0, "slotIndex": slot, "slotsInEpoch": 432_000, "transactionCount": None}

    def getFirstAvailableBlock(self, params, options):
        return self.chain.base

    def getBlockTime(self, params, options):
        return self.chain.began

    def getLatestBlockhash(self, params, options):
        back = 1 if options.get("commitment") in NEWEST else min(FINAL_DEPTH, len(self.chain.hashes))
        slot, blockhash = self.chain.hashes[-back]
        return self._at({"blockhash": str(Hash(blockhash)), "lastValidBlockHeight": slot + MAX_AGE})

    def isBlockhashValid(self, params, options):
        at = self.chain.by_hash.get(bytes(Hash.from_string(params[0])))
        return self._at(at is not None and self.chain.slot - at <= MAX_AGE)

    def getFeeForMessage(self, params, options):
        message = from_bytes_versioned(base64.b64decode(params[0]))
        at = self.chain.by_hash.get(bytes(message.recent_blockhash))
        return self._at(None if at is None or self.chain.slot - at > MAX_AGE else fee(message))

    def getRecentPrioritizationFees(self, params, options):
        return [{"slot": slot, "prioritizationFee": 0} for slot, _ in list(self.chain.hashes)[-5:]]

    def getMinimumBalanceForRentExemption(self, params, options):
        return self.chain.svm.minimum_balance_for_rent_exemption(params[0])

    # ---- accounts

    def getBalance(self, params, options):
        return self._at(self.chain.lamports(key(params[0])))

    def getAccountInfo(self, params, options):
        return self._at(self._account(key(params[0]), options))

    def getMultipleAccounts(self, params, options):
        return self._at([self._account(key(text), options) for text in params[0]])

    def getTokenAccountBalance(self, params, options):
        account = self.chain.svm.get_account(key(params[0]))
        if account is None:
            raise RpcError(-32602, "Invalid param: could not find account")
        if account.owner != TOKEN or len(account.data) != 165:
            raise RpcError(-32602, "Invalid param: not a Token account")
        return self._at(self.chain.ui(struct.unpack_from("<Q", account.data, 64)[0], Pubkey(account.data[:32])))

    def getTokenAccountsByOwner(self, params, options):
        mint = key(params[1]["mint"]) if "mint" in params[1] else self.chain.mint
        place = associated(key(params[0]), mint)
        account = self._account(place, options)
        return self._at([{"pubkey": str(place), "account": account}] if account else [])

    def _account(self, place, options):
        account = self.chain.svm.get_account(place)
        if account is None or account.lamports == 0:
            return None
        body = {"lamports": account.lamports, "owner": str(account.owner), "executable": account.executable}
        body.update({"rentEpoch": 18446744073709551615, "space": len(account.data)})
        if options.get("encoding") == "jsonParsed" and account.owner == TOKEN and len(account.data) in (82, 165):
            body["data"] = {"program": "spl-token", "parsed": self._parsed(account.data), "space": len(account.data)}
        else:
            body["data"] = [base64.b64encode(account.data).decode(), "base64"]
        return body

    def _parsed(self, data):
        if len(data) == 82:
            info = {"decimals": data[44], "supply": str(struct.unpack_from("<Q", data, 36)[0]), "isInitialized": data[45] == 1}
            return {"info": {**info, "mintAuthority": str(Pubkey(data[4:36])), "freezeAuthority": None}, "type": "mint"}
        mint, owner, amount = struct.unpack_from("<32s32sQ", data)
        state = {1: "initialized", 2: "frozen"}.get(data[108], "uninitialized")
        info = {"mint": str(Pubkey(mint)), "owner": str(Pubkey(owner)), "state": state, "isNative": False}
        return {"info": {**info, "tokenAmount": self.chain.ui(amount, Pubkey(mint))}, "type": "account"}

    # ---- transactions

    def simulateTransaction(self, params, options):
        transaction = decode(params[0], options.get("encoding", "base58"))
        verify, replace = options.get("sigVerify", False), options.get("replaceRecentBlockhash", False)
        if verify and replace:
            raise RpcError(-32602, "sigVerify may not be used with replaceRecentBlockhash")
        if verify and not self.chain.is_signed(transaction):
            raise RpcError(-32003, "Transaction signature verification failure")
        return self._at(self.chain.simulate(transaction, verify, not replace))

    def sendTransaction(self, params, options):
        transaction = decode(params[0], options.get("encoding", "base58"))
        if not options.get("skipPreflight", False):
            if not self.chain.is_signed(transaction):
                raise RpcError(-32003, "Transaction signature verification failure")
            outcome = self.chain.simulate(transaction, True, True)
            if outcome["err"] is not None:
                raise RpcError(-32002, "Transaction simulation failed: " + words(outcome["err"]), outcome)
        self.chain.take(transaction)
        return str(transaction.signatures[0])

    def getSignatureStatuses(self, params, options):
        return self._at([self.chain.status(signature) for signature in params[0]])

    def getSignaturesForAddress(self, params, options):
        account, found = key(params[0]), []
        for signature, record in reversed(self.chain.landed.items()):
            if not self._is_visible(record, options) or account not in [place for place, _ in record["accounts"]]:
                continue
            level = self.chain.status(signature)["confirmationStatus"]
            entry = {"signature": signature, "slot": record["slot"], "err": record["err"], "memo": memos(record["bytes"])}
            found.append({**entry, "blockTime": record["time"], "confirmationStatus": level})
        if options.get("before"):
            known = [entry["signature"] for entry in found]
            found = found[known.index(options["before"]) + 1 :] if options["before"] in known else found
        return found[: options.get("limit", 1000)]

    def getTransaction(self, params, options):
        record = self.chain.landed.get(params[0])
        if not record or not self._is_visible(record, options):
            return None
        transaction = VersionedTransaction.from_bytes(record["bytes"])
        version = 0 if isinstance(transaction.message, MessageV0) else "legacy"
        if version == 0 and options.get("maxSupportedTransactionVersion") is None:
            raise RpcError(-32015, "Transaction version (0) is not supported by the requesting client.")
        message = transaction.message
        body = {
            "signatures": [str(signature) for signature in transaction.signatures],
            "message": {"accountKeys": [str(place) for place in message.account_keys], "recentBlockhash": str(message.recent_blockhash)},
        }
        if options.get("encoding") == "base64":
            body = [base64.b64encode(record["bytes"]).decode(), "base64"]
        meta = {
            "err": record["err"],
            "status": {"Ok": None} if record["err"] is None else {"Err": record["err"]},
            "fee": record["fee"],
            "preBalances": record["pre"],
            "postBalances": record["post"],
            "preTokenBalances": record["pre_tokens"],
            "postTokenBalances": record["post_tokens"],
            "logMessages": record["logs"],
            "computeUnitsConsumed": record["units"],
            "innerInstructions": [],
            "rewards": [],
            "loadedAddresses": {"readonly": [], "writable": []},
        }
        return {"slot": record["slot"], "blockTime": record["time"], "version": version, "transaction": body, "meta": meta}

    def _is_visible(self, record, options):
        depth = {"processed": 0, "confirmed": 1}.get(options.get("commitment"), FINAL_DEPTH)
        return self.chain.slot - record["slot"] >= depth

    # ---- what tests do to the chain

    def dev_advanceSlots(self, params, options):
        self.chain.extra += params[0]
        self.chain.tick()
        return self.chain.slot

    def dev_keepSince(self, params, options):
        self.chain.began = params[0]

    def dev_setFaults(self, params, options):
        self.chain.faults.update(params[0])
        return self.chain.faults

    def dev_setTokenBalance(self, params, options):
        self.chain.give_tokens(key(params[0]), params[1])
        return str(associated(key(params[0]), self.chain.mint))

    def dev_closeTokenAccount(self, params, options):
        self.chain.close_tokens(key(params[0]))

    def dev_setLamports(self, params, options):
        self.chain.give_lamports(key(params[0]), params[1])

    def dev_undo(self, params, options):
        self.chain.undo(params[0])

    def dev_landed(self, params, options):
        tokens = lambda entries: {entry["owner"]: int(entry["uiTokenAmount"]["amount"]) for entry in entries}
        told = []
        for signature, record in self.chain.landed.items():
            change = {"before": tokens(record["pre_tokens"]), "after": tokens(record["post_tokens"])}
            told.append({"signature": signature, "err": record["err"], "fee": record["fee"], **change})
        waiting = {str(transaction.signatures[0]) for _, transaction in self.chain.queue}
        return {"transactions": told, "sends": self.chain.sent, "waiting": len(waiting)}


def key(text):
    try:
        return Pubkey.from_string(text)
    except Exception:
        raise RpcError(-32602, "Invalid param: Invalid")


def decode(text, encoding):
    try:
        raw = base64.b64decode(text, validate=True) if encoding == "base64" else from_base58(text)
    except Exception:
        raise RpcError(-32602, f"invalid {encoding} encoding")
    if len(raw) > 1232:
        raise RpcError(-32602, f"decoded {TYPE} too large: {len(raw)} bytes (max: 1232 bytes)")
    try:
        return read(raw)
    except Exception as error:
        raise RpcError(-32602, f"failed to deserialize {TYPE}: {error}")


def from_base58(text):
    number = 0
    for digit in text:
        number = number * 58 + "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".index(digit)
    return bytes(len(text) - len(text.lstrip("1"))) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def memos(raw):
    message = VersionedTransaction.from_bytes(raw).message
    said = [one for one in message.instructions if str(message.account_keys[one.program_id_index]) == MEMO]
    return "; ".join(f"[{len(bytes(one.data))}] {bytes(one.data).decode()}" for one in said) or None


def fee(message):
    limit, price = 200_000 * max(1, len(message.instructions)), 0
    for instruction in message.instructions:
        if str(message.account_keys[instruction.program_id_index]) == "ComputeBudget111111111111111111111111111111":
            data = bytes(instruction.data)
            limit = struct.unpack_from("<I", data, 1)[0] if data[:1] == b"\x02" else limit
            price = struct.unpack_from("<Q", data, 1)[0] if data[:1] == b"\x03" else price
    return 5000 * message.header.num_required_signatures + -(-limit * price // 1_000_000)


def words(error):
    if isinstance(error, str):
        return WORDS.get(error, error)
    if "InstructionError" not in error:
        return f"Error processing: {json.dumps(error)}"
    place, why = error["InstructionError"]
    detail = f"custom program error: 0x{why['Custom']:x}" if isinstance(why, dict) and "Custom" in why else str(why)
    return f"Error processing Instruction {place}: {detail}"
