"""What solders, Solana's own code, reads in transactions: one in hex per line of a file, one verdict per line of stdout."""

import json
import sys

from solders.transaction import VersionedTransaction


def read(wire):
    try:
        transaction = VersionedTransaction.from_bytes(wire)
        transaction.sanitize()
    except BaseException:  # whatever it raises, it is no transaction; some of it are panics
        return None
    message = transaction.message
    return {
        "wire": bytes(transaction).hex(),
        "keys": [str(key) for key in message.account_keys],
        "blockhash": str(message.recent_blockhash),
        "signers": message.header.num_required_signatures,
        "instructions": [[call.program_id_index, list(call.accounts), bytes(call.data).hex()] for call in message.instructions],
        "looked_up": sum(
            len(table.writable_indexes) + len(table.readonly_indexes)
            for table in getattr(message, "address_table_lookups", [])
        ),
        "signed": transaction.verify_with_results(),
    }


with open(sys.argv[1]) as lines:
    for line in lines:
        print(json.dumps(read(bytes.fromhex(line))))
