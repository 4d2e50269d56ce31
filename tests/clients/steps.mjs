// Performs a list of steps as a test orders them: ORDER is JSON, [{do, ...}]. Prints one line of JSON, one outcome per step:
// {value} or {error}, and what `afterwards` says about the client.

/** `actions` has one function per word that a step's `do` may say. With `dependent` steps the first that fails is the last one. */
export async function perform(actions, afterwards = () => ({}), dependent = false) {
  const outcomes = [];
  for (const step of JSON.parse(process.env.ORDER)) {
    if (!actions[step.do]) throw new Error(`there is no step ${step.do}`);
    try {
      outcomes.push({ value: (await actions[step.do](step)) ?? null, ...afterwards() });
    } catch (error) {
      outcomes.push({ error: told(error), ...afterwards() });
      if (dependent) break;
    }
  }
  console.log(JSON.stringify(outcomes));
}

/** Any method of an SDK by its name, such as `files.list`; `client` makes the client for a step. */
export const called = (client) => ({
  call: async (step) => {
    const names = step.method.split(".");
    const method = names.pop();
    const owner = names.reduce((object, name) => object[name], client(step));
    return owner[method](...(step.arguments ?? []));
  },
});

/** What a program sees that catches the error; `class` is what it would write after `instanceof`. */
function told(error) {
  const { name, message, status, code, type, details } = error;
  const request_id = error.requestID ?? error.request_id;
  // Node's fetch says in the cause what it was that failed.
  const cause = message === "fetch failed" && error.cause ? String(error.cause) : undefined;
  return { class: error.constructor.name, name, message, status, code, type, details, request_id, cause };
}
