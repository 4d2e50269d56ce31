// Sends one request many times at once: all connections are opened first, then every copy leaves in the same moment.
// stdin: {host, port, request (base64 of the bytes), count}; stdout: one JSON line per copy, {status, answer}.
import { connect } from "node:net";

let input = "";
for await (const chunk of process.stdin) input += chunk;
const { host, port, request, count } = JSON.parse(input);
const bytes = Buffer.from(request, "base64");

const open = () =>
  new Promise((resolve, reject) => {
    const socket = connect(port, host, () => resolve(socket));
    socket.once("error", reject);
  });
const answer = async (socket) => {
  const chunks = [];
  for await (const chunk of socket) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString("utf8");
  return { status: Number(text.split(" ")[1]), answer: text };
};

const sockets = await Promise.all(Array.from({ length: count }, open));
const answers = sockets.map(answer);
for (const socket of sockets) socket.write(bytes);
for (const outcome of await Promise.all(answers)) console.log(JSON.stringify(outcome));
