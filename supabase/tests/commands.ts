import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { root } from "../local/project.ts";

/** A command that runs as its user starts it, in a shell that is no terminal. */
export interface Command {
  process: ChildProcess;
  stdout(): string;
  stderr(): string;
  /** Both streams, in the order in which they came. */
  output(): string;
  /** The exit code, or the number that a shell makes of the signal that ended it: npm ends itself with the signal of its script. */
  ended: Promise<number>;
  untilPrinted(text: string): Promise<void>;
  /** Sends a signal to the command and what it has started, as Ctrl-C does; nothing once it has ended. */
  signal(name: NodeJS.Signals): void;
}

/** Starts a program, in the root of this project unless told otherwise, as the leader of a process group of its own. */
export function startCommand(
  [program = "", ...parameters]: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Command {
  const child = spawn(program, parameters, {
    cwd: root,
    ...options,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const printed = { stdout: "", stderr: "", output: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].on("data", (chunk: Buffer) => {
      printed[stream] += chunk.toString();
      printed.output += chunk.toString();
    });
  }
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, name) => resolve(name ? 128 + constants.signals[name] : code ?? 0));
  });
  const signal = (name: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-Number(child.pid), name);
  };
  const endWithThis = () => signal("SIGTERM");
  process.once("exit", endWithThis);
  child.once("close", () => process.off("exit", endWithThis));
  return {
    process: child,
    stdout: () => printed.stdout,
    stderr: () => printed.stderr,
    output: () => printed.output,
    ended,
    untilPrinted: async (text) => {
      while (!printed.output.includes(text)) {
        if (child.exitCode !== null) throw new Error(`it ended without ${text}:\n${printed.output}`);
        await sleep(20);
      }
    },
    signal,
  };
}
