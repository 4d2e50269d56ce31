// Sends many requests at once: all connections are opened first, then everything leaves in the same moment.
// stdin: {host, port, requests (base64 of the bytes of each)}; stdout: one JSON line per copy, {status, answer}.
import { connect } from "node:net";

let input = "";
for await (const chunk of process.stdin) input += chunk;
const { host, port, requests } = JSON.parse(input);

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

const sockets = await Promise.all(requests.map(open));
const answers = sockets.map(answer);
sockets.forEach((socket, place) => socket.write(Buffer.from(requests[place], "base64")));
for (const outcome of await Promise.all(answers)) console.log(JSON.stringify(outcome));
