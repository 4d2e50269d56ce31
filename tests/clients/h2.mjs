// Speaks HTTP/2 as node does, on one connection. Environment: BASE_URL, CA (a file), NAME (for which the certificate must be, where
// it is not the host of BASE_URL), WINDOW (bytes that a stream may send unread), ORDER (see steps.mjs).
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import tls from "node:tls";
import { perform } from "./steps.mjs";

const { BASE_URL, CA, NAME, WINDOW } = process.env;
const named = NAME ? { servername: NAME } : {};
const ca = readFileSync(CA);
const settings = WINDOW ? { initialWindowSize: Number(WINDOW) } : {};
const session = http2.connect(BASE_URL, { ca, settings, ...named });
session.on("error", () => {});

/**
 * Sends a request and says how its answer ended: "end", "reset" with a code, or "left", which is ours. `leave` is when we go:
 * after so many pieces of the body, 0 for before its head.
 */
function call({ method = "POST", path, headers = {}, body, leave }) {
  return new Promise((resolve) => {
    const stream = session.request({ ":method": method, ":path": path, "content-type": "application/json", ...headers });
    const seen = { text: "", pieces: 0, ended: "reset" };
    const go = () => {
      seen.ended = "left";
      stream.close(http2.constants.NGHTTP2_CANCEL);
    };
    stream.on("response", (head) => {
      seen.status = head[":status"];
      seen.headers = { ...head };
    });
    stream.setEncoding("utf8");
    stream.on("data", (piece) => {
      seen.text += piece;
      seen.pieces += 1;
      if (leave && seen.pieces >= leave) go();
    });
    stream.on("end", () => {
      if (seen.ended === "reset" && stream.rstCode === 0) seen.ended = "end";
    });
    stream.on("error", () => {});
    stream.on("close", () => {
      if (stream.rstCode !== 0 && seen.ended === "end") seen.ended = "reset";
      resolve({ ...seen, code: stream.rstCode, protocol: session.alpnProtocol });
    });
    stream.end(body);
    // By then its upstream was asked, also on a machine that is busy.
    if (leave === 0) setTimeout(go, 3000);
  });
}

await perform({
  call,
  /** Several requests at the same time. */
  calls: ({ all }) => Promise.all(all.map(call)),
  /** What a handshake of its own is shown: the certificate's number, and the protocol agreed on. */
  shown: ({ protocols }) =>
    new Promise((resolve, reject) => {
      const { hostname, port } = new URL(BASE_URL);
      const socket = tls.connect({ host: hostname, port, ca, servername: NAME ?? "localhost", ALPNProtocols: protocols }, () => {
        resolve({ serial: socket.getPeerCertificate().serialNumber, protocol: socket.alpnProtocol });
        socket.destroy();
      });
      socket.on("error", reject);
    }),
});
session.destroy();
