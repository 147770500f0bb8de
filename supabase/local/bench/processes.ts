import { readdirSync, readFileSync } from "node:fs";
import { connect } from "../databases.ts";
import type { PostgresServer } from "../postgres.ts";

/** What the system says of a process; NaN where it does not, which is everywhere except on Linux. */
export interface Process {
  parent: number;
  /** What it used of the CPU, and what those of its children used that have ended. */
  cpuSeconds: number;
  cpuSecondsOfEnded: number;
  /** Of memory, at its peak and now. */
  peakMegabytes: number;
  megabytes: number;
}

export function readProcess(pid: number | undefined): Process {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const megabytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ").map(Number);
    // The times are the 14th to 17th field, in ticks of 10 ms: of the process, user and system, and of its ended children.
    const seconds = (field: number) => ((fields[field] ?? NaN) + (fields[field + 1] ?? NaN)) / 100;
    return {
      parent: fields[1] ?? NaN,
      cpuSeconds: seconds(11),
      cpuSecondsOfEnded: seconds(13),
      peakMegabytes: megabytes("VmHWM"),
      megabytes: megabytes("VmRSS"),
    };
  } catch {
    return { parent: NaN, cpuSeconds: NaN, cpuSecondsOfEnded: NaN, peakMegabytes: NaN, megabytes: NaN };
  }
}

/** Seconds of CPU that a server has used, all of its processes together, those that have ended too. Other programs do not change them. */
export function readCpuOfServer(pid: number): number {
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readProcess(Number(name)))
    .filter(({ parent }) => parent === pid);
  const server = readProcess(pid);
  return [server, ...children].reduce((total, { cpuSeconds }) => total + cpuSeconds, server.cpuSecondsOfEnded);
}

/** The process that started all others of a server. */
export async function findServer(server: Pick<PostgresServer, "url">): Promise<number> {
  const sql = connect(server.url({ role: "supabase_admin" }));
  const [file] = await sql`select pg_read_file('postmaster.pid') as text`;
  await sql.end();
  return parseInt(file?.["text"] as string);
}
