import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createInterruption } from "../../cli/interruption.ts";
import { root } from "../../local/project.ts";
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
  const runUnread = async (...parameters: string[]) => {
    const pipe = '{ "$0" "$@"; echo "ended with $?" >&3; } 3>&1 2>&1 >&4 4>&- | cat';
    // The reader of file 4 has gone before the command begins.
    const run = startCommand([
      "bash",
      "-c",
      `exec 4> >(exit); wait $!; ${pipe}`,
      process.execPath,
      "--import",
      "tsx",
      ...parameters,
    ]);
    expect(await run.ended).toBe(0);
    return run.output();
  };

  const scripts = (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> })
    .scripts;
  const commands = Object.entries(scripts).flatMap(([name, script]) => {
    const file = /supabase\/(cli\/\w+|local\/start)\.ts$/.exec(script)?.[0];
    return file === undefined ? [] : [[name, file] as const];
  });

  test("is one of those that package.json names", () => {
    expect(commands.map(([name]) => name)).toEqual(["adopt", "start", "push", "watch", "users", "report", "export"]);
  });

  test.each(commands)("npm run %s ends without a word, as a shell expects", async (_, file) => {
    expect(await runUnread(file, "--help")).toBe("ended with 141\n");
  });

  test("writes no page, and says nothing of the database", async () => {
    const write =
      'import("./supabase/cli/report-output.ts").then(({ preparePage }) => preparePage(1, {}).write("<p>"))';
    expect(await runUnread("--eval", write)).toBe("ended with 141\n");
  });
});
