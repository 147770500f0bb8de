import { describe, expect, test } from "vitest";
import { askSecret, type SecretInput } from "../../local/ask-secret.ts";
import { createInterruption } from "../../local/interruption.ts";

describe("createInterruption", () => {
  test("asks to stop at the first Ctrl-C and its echo, and stops at once at the second", () => {
    let time = 0;
    let stops = 0;
    const { signal, interrupt } = createInterruption(() => time, () => stops++);
    expect([signal.aborted, stops]).toEqual([false, 0]);
    interrupt();
    time = 400;
    interrupt();
    expect([signal.aborted, stops]).toEqual([true, 0]);
    time = 600;
    interrupt();
    expect(stops).toBe(1);
  });
});

describe("askSecret", () => {
  const ask = (typed: string[], signal = new AbortController().signal) => {
    const states: string[] = [];
    let read: (chunk: Buffer) => void = () => {};
    const input = {
      setRawMode: (raw: boolean) => states.push(raw ? "raw" : "as before"),
      resume: () => {},
      pause: () => states.push("paused"),
      on: (_event: string, listener: typeof read) => read = listener,
      off: () => {},
    } as unknown as SecretInput;
    let written = "";
    const answer = askSecret("Key: ", input, (text) => written += text, signal);
    for (const chunk of typed) read(Buffer.from(chunk));
    return answer.then((secret) => ({ secret, states, written }));
  };

  test("reads up to Enter without showing it, and leaves the terminal as it was", async () => {
    expect(await ask(["sb_x", "\x7f\x1b[Asecret", "\r"])).toEqual({
      secret: "sb_secret",
      states: ["raw", "as before", "paused"],
      written: "Key: \n",
    });
  });

  test.each(["\x03", "\x04"])("gives nothing back at %j", async (letter) => {
    expect(await ask(["sb_", letter])).toMatchObject({ secret: undefined, states: ["raw", "as before", "paused"] });
  });

  test("gives nothing back when the signal comes", async () => {
    const stop = new AbortController();
    const asked = ask(["sb_"], stop.signal);
    stop.abort();
    expect(await asked).toMatchObject({ secret: undefined, states: ["raw", "as before", "paused"] });
  });
});
