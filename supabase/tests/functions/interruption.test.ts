import { describe, expect, test } from "vitest";
import { createInterruption } from "../../cli/interruption.ts";
import { startCommand } from "../commands.ts";

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

describe("a command whose output nobody reads", () => {
  test.each(["users", "watch", "adopt"])("npm run %s ends without a word, as a shell expects", async (name) => {
    const pipe = '{ "$0" "$@"; echo "ended with $?" >&3; } 3>&1 2>&1 >&4 4>&- | cat';
    const program = [process.execPath, "--import", "tsx", `supabase/cli/${name}.ts`, "--help"];
    // The reader of file 4 has gone before the command begins.
    const run = startCommand(["bash", "-c", `exec 4> >(exit); wait $!; ${pipe}`, ...program]);
    expect(await run.ended).toBe(0);
    expect(run.output()).toBe("ended with 141\n");
  });
});
