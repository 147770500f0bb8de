import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { packageFolder, root } from "./project.ts";

export interface CliResult {
  code: number | null;
  /** What it printed on both streams, in the order in which it came. */
  output: string;
}

export interface CliRun {
  process: ChildProcess;
  result: Promise<CliResult>;
}

/** The Supabase CLI of this project, to be run by Node. */
export const supabaseProgram = join(packageFolder("supabase"), "dist/supabase.js");

/**
 * Runs the Supabase CLI of this project as `npx supabase <parameters>` does. onOutput gets each piece of output as it comes. A
 * detached process leads a process group of its own.
 */
export function startSupabase(
  parameters: string[],
  options: { onOutput?: (text: string) => void; detached?: boolean } = {},
): CliRun {
  const child = spawn(process.execPath, [supabaseProgram, ...parameters], {
    cwd: root,
    env: { ...process.env, SUPABASE_TELEMETRY_DISABLED: "1", DO_NOT_TRACK: "1", NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    detached: options.detached ?? false,
  });
  const killOnExit = () => child.kill();
  process.once("exit", killOnExit);
  child.once("close", () => process.off("exit", killOnExit));
  let output = "";
  const collect = (chunk: Buffer) => {
    output += chunk.toString();
    options.onOutput?.(chunk.toString());
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const result = new Promise<CliResult>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, output }));
  });
  return { process: child, result };
}

/** Runs the CLI to its end and returns its output. Throws an error with the output if it fails. */
export async function supabase(parameters: string[], onOutput?: (text: string) => void): Promise<string> {
  const { code, output } = await startSupabase(parameters, onOutput ? { onOutput } : {}).result;
  if (code !== 0) throw new Error(`supabase ${parameters.join(" ")} failed (exit code ${code}):\n${output}`);
  return output;
}
