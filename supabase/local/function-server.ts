import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort, isPortFree } from "./postgres.ts";
import { packageFolder, root, stateFolder } from "./project.ts";

export interface FunctionServer {
  /** The address of the function, without a path. */
  url: string;
  /** The file that the function logs to, one JSON object per line. */
  log: string;
  /** The Deno process that runs the function. */
  process: ChildProcess;
  stop(): Promise<void>;
}

/**
 * Serves functions/<name>/index.ts, unchanged, with the Deno that the platform's runtime is compatible with. Packages come from
 * node_modules above it; nothing is downloaded. Resolves when the function answers. Throws the end of its log if it does not.
 */
export async function serveFunction(
  name: string,
  environment: Record<string, string>,
  folder: string,
  /** The functions folder, if it is not this project's. */
  functions: string = join(root, "supabase/functions"),
): Promise<FunctionServer> {
  const port = await freePort();
  mkdirSync(folder, { recursive: true });
  const log = join(folder, `${name}.log`);
  const output = openSync(log, "w");
  const child = spawn(
    denoProgram(),
    [
      "serve",
      "--allow-all",
      "--no-prompt",
      // The memory that the platform gives a worker.
      "--v8-flags=--max-heap-size=256",
      "--cached-only",
      "--node-modules-dir=manual",
      "--host=127.0.0.1",
      `--port=${port}`,
      join(functions, name, "index.ts"),
    ],
    {
      cwd: root,
      env: {
        PATH: process.env["PATH"],
        HOME: process.env["HOME"],
        DENO_DIR: join(stateFolder(), "deno"),
        DENO_NO_UPDATE_CHECK: "1",
        NO_COLOR: "1",
        ...environment,
      },
      stdio: ["ignore", output, output],
    },
  );
  const killOnExit = () => child.kill("SIGKILL");
  process.once("exit", killOnExit);
  const stop = async () => {
    process.off("exit", killOnExit);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await gone;
  };

  for (let tries = 0; tries < 600; tries++) {
    if (child.exitCode !== null) break;
    if (!(await isPortFree(port))) return { url: `http://127.0.0.1:${port}`, log, process: child, stop };
    await sleep(50);
  }
  await stop();
  throw new Error(
    `The function ${name} did not start. Its log (${log}) ends with:\n${readFileSync(log, "utf8").slice(-2000)}`,
  );
}

/** The Deno binary itself, since the launcher of its package does not pass signals on. */
export function denoProgram(): string {
  const launcher = packageFolder("deno");
  const platform = `${process.platform}-${process.arch}`;
  for (const name of [`@deno/${platform}-glibc`, `@deno/${platform}`]) {
    try {
      const program = join(
        packageFolder(name, join(launcher, "package.json")),
        process.platform === "win32" ? "deno.exe" : "deno",
      );
      if (existsSync(program)) return program;
    } catch {
      continue;
    }
  }
  throw new Error(`Cannot find Deno for ${platform} beside ${dirname(launcher)}: run npm ci`);
}
