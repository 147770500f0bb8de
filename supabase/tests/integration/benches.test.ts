import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { stateFolder } from "../../local/project.ts";
import { startCommand } from "../commands.ts";

/** Runs a benchmark with few rows, and returns the cells of its tables by what their lines begin with. */
async function runBench(name: string, ...parameters: string[]): Promise<Map<string, string[]>> {
  const env = { ...process.env };
  delete env["BENCH_PGROLL"];
  const bench = startCommand(["npm", "run", "--silent", name, "--", ...parameters], { env });
  expect(await bench.ended, bench.output()).toBe(0);
  const lines = bench.stdout().split("\n").filter((line) => line.startsWith("| "));
  return new Map(lines.map((line) => {
    const [first = "", ...cells] = line.slice(2, -2).split(" | ");
    return [first, cells];
  }));
}

/** On any machine what they count is the same; what they time is not looked at. */
describe("npm run", () => {
  test("bench:peers leaves no row wrong, and only these migrations refuse no write", async () => {
    const cells = await runBench("bench:peers", "2000");
    expect(cells.get("")).toEqual(["plain plan", "batches of 1,000", "these migrations"]);
    expect(cells.get("rows with a wrong organization or none")).toEqual(["0", "0", "0"]);
    expect(cells.get("rows left over by the backfill")?.[2]).toBe("0");
    const refused = cells.get("writer: refused, until a second after the end")?.map(Number);
    expect(refused?.[0], "by NOT NULL without a default").toBeGreaterThan(0);
    expect(refused?.[1]).toBeGreaterThan(0);
    expect(refused?.[2]).toBe(0);
  });

  test("bench:users finds that the function misses nobody and writes lost updates again, and the plan's script does not", async () => {
    const cells = await runBench("bench:users", "300");
    const [, , , missed, lost] = cells.get("the function, ten at a time") ?? [];
    expect([missed, lost]).toEqual(["0", "0"]);
    expect(cells.get("the function, its mode sql")?.slice(3)).toEqual(["0", "0"]);
    expect(Number(cells.get("the plan's script")?.[4])).toBeGreaterThan(0);
  });

  test("bench:scale compares tables, partitions and rows", async () => {
    const cells = await runBench("bench:scale", "--tables", "54,64", "--partitions", "3", "--rows", "1000,2000");
    for (const step of ["preflight", "plan", "push", "review", "verify_schema", "verify"]) {
      expect(cells.get(step), step).toHaveLength(5);
    }
    expect(cells.get("2,000")?.[1]).toMatch(/^\d+\.\d\d ×$/);
  });

  test("bench --only measures one part, and says how long the writer waited at the most and at p99.9", async () => {
    const cells = await runBench("bench", "1000", "--only", "one-organization");
    expect([...cells.keys()]).toEqual(expect.arrayContaining(["writer: longest stall", "writer: p99.9"]));
    expect(cells.get("writer: p99.9")?.[1]).toMatch(/^[\d,.]+ ms$/);
    expect([...cells.keys()], "of the other parts").not.toContain("rows per second");
    expect([...cells.keys()]).not.toContain("against none");
  });

  test("a benchmark that is ended leaves neither its server nor its files", async () => {
    const bench = startCommand(["node", "--import", "tsx", "supabase/local/bench/progress.ts", "1000"]);
    await bench.untilPrinted("undisturbed");
    const files = join(stateFolder(), `bench-${bench.process.pid}`);
    const [server = ""] = readFileSync(join(files, "server/data/postmaster.pid"), "utf8").split("\n");
    process.kill(bench.process.pid ?? 0, "SIGTERM");
    await bench.ended;
    expect(existsSync(files)).toBe(false);
    await vi.waitFor(() => expect(() => process.kill(Number(server), 0)).toThrow("ESRCH"), { timeout: 60_000 });
  });

  test.each([["--only", "mapped,nothing"], ["--only", ""], ["--all", "1000"]])(
    "bench refuses %s %s",
    async (...given) => {
      const bench = startCommand(["npm", "run", "--silent", "bench", "--", ...given]);
      expect(await bench.ended).toBe(1);
      expect(bench.stderr()).toContain(`Cannot run the benchmark with "${given.join(" ")}": the one argument is`);
    },
  );

  test("bench --help names the parts", async () => {
    const bench = startCommand(["npm", "run", "--silent", "bench", "--", "--help"]);
    expect(await bench.ended).toBe(0);
    expect(bench.stdout()).toContain("--only one-organization,mapped,backfill,backfill-cold,guard,inserts");
  });

  test.each([["bench:peers", "ten"], ["bench:users", "0"]])("%s refuses %s", async (name, argument) => {
    const bench = startCommand(["npm", "run", "--silent", name, "--", argument]);
    expect(await bench.ended).toBe(1);
    expect(bench.stderr()).toContain(`Cannot run the benchmark with "${argument}": the one argument is the number of`);
  });
});
