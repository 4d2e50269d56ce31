// Reads an answer the way a buyer does: the text it bought and the receipts it was given.

/** One flat object per answer; the Python driver prints the same fields. */
export function decode(status, header, body, chunks, payment) {
  const receipts = {};
  for (const name of ["payment-response", "x-payment-response"]) {
    if (header(name)) receipts[name] = JSON.parse(Buffer.from(header(name), "base64").toString("utf8"));
  }
  return {
    status,
    text: status === 200 ? answerText(header("content-type") ?? "", body) : null,
    receipt: receipts["payment-response"] ?? receipts["x-payment-response"] ?? null,
    receipt_headers: receipts,
    request_id: header("x-request-id"),
    balance_remaining: header("x-balance-remaining"),
    chunks,
    payment: payment ?? null,
    body,
  };
}

function answerText(contentType, body) {
  if (!contentType.startsWith("text/event-stream")) return textOf(JSON.parse(body));
  const data = body.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
  return data.filter((line) => line !== "[DONE]").map((line) => textOf(JSON.parse(line))).join("");
}

/** The text in an answer, a chunk or an event of any dialect. */
function textOf(part) {
  if (part.type === "response.output_text.delta") return part.delta;
  const choice = part.choices?.[0];
  const contents = [part, ...(part.output ?? [])].flatMap((item) => item.content ?? []);
  const blocks = contents.map((block) => block.text ?? "").join("");
  return choice?.message?.content ?? choice?.delta?.content ?? part.delta?.text ?? blocks;
}
