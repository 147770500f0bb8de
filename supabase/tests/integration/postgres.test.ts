import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { connect } from "../../local/databases.ts";
import { freePort, type PostgresServer, startPostgres } from "../../local/postgres.ts";

const isRoot = process.getuid?.() === 0;

describe("startPostgres in a folder of the caller", () => {
  let parent: string;
  let server: PostgresServer | undefined;

  beforeEach(() => {
    parent = join(inject("folder"), "callers");
    mkdirSync(parent);
  });

  afterEach(async () => {
    await server?.stop("immediate");
    server = undefined;
    rmSync(parent, { recursive: true });
  });

  const start = async (folder: string) =>
    await startPostgres({ port: await freePort(), folder, major: inject("major") });
  const modeOf = (path: string) => statSync(path).mode & 0o777;
  const expectToAnswer = async (started: PostgresServer) => {
    const sql = connect(started.url());
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }]);
    await sql.end();
  };

  test.each(isRoot ? ["711", "777"] : ["700", "777"])("keeps the parent's mode %s", async (octal) => {
    const mode = Number.parseInt(octal, 8);
    chmodSync(parent, mode);
    server = await start(join(parent, "server"));
    await expectToAnswer(server);
    expect(modeOf(parent)).toBe(mode);
  });

  test("reaches its data through parents that it makes, even where new folders are their owner's alone", async () => {
    chmodSync(parent, 0o711);
    const umask = process.umask(0o077);
    try {
      server = await start(join(parent, "a/b/server"));
    } finally {
      process.umask(umask);
    }
    await expectToAnswer(server);
    expect(modeOf(parent)).toBe(0o711);
    expect(modeOf(join(parent, "a"))).toBe(isRoot ? 0o755 : 0o700);
  });

  test.runIf(isRoot)("refuses a parent that it cannot enter as nobody, and changes and deletes nothing", async () => {
    chmodSync(parent, 0o700);
    const folder = join(parent, "server");
    mkdirSync(folder);
    writeFileSync(join(folder, "mine"), "kept");
    await expect(start(folder)).rejects.toThrow(`the account nobody cannot enter ${parent}`);
    expect(modeOf(parent)).toBe(0o700);
    expect(readFileSync(join(folder, "mine"), "utf8")).toBe("kept");
    expect(existsSync(join(folder, "data"))).toBe(false);
  });
});
