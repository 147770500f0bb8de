import { connect as connectSocket, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { closeLive, connectLive } from "../../cli/live-database.ts";
import { openUsers } from "../../functions/update-user-org-metadata/users-database.ts";
import { databaseUrl } from "../../local/postgres.ts";

/** The end of the server's greeting: it is ready for the first query. */
const ready = Buffer.from("Z\0\0\0\x05I", "latin1");

let proxy: Server;
let url: string;
/** What reached nobody. It would end the command, or the edge function's worker. */
const uncaught: unknown[] = [];
const note = (reason: unknown) => void uncaught.push(reason);

/** Stands before the real server, and ends each connection in place of its first query. */
beforeEach(async () => {
  proxy = createServer((client: Socket) => {
    const server = connectSocket(inject("databasePort"), "127.0.0.1");
    let greeted = false;
    server.on("data", (data) => {
      greeted ||= data.includes(ready);
      client.write(data);
    });
    client.on("data", (data) => {
      if (!greeted) return void server.write(data);
      client.destroy();
      server.destroy();
    });
    for (const socket of [client, server]) socket.on("error", () => {});
    client.on("close", () => server.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const target = new URL(databaseUrl(inject("databasePort"), { database: "template1" }));
  target.port = String((proxy.address() as { port: number }).port);
  url = target.href;
  process.on("unhandledRejection", note);
});

afterEach(async () => {
  process.off("unhandledRejection", note);
  uncaught.length = 0;
  await new Promise((resolve) => proxy.close(resolve));
});

test("a command's query fails, and nothing else, where the connection goes in its place", async () => {
  const sql = connectLive(url);
  await expect(sql`select 1`).rejects.toMatchObject({ code: "CONNECTION_CLOSED" });
  await closeLive(sql);
  expect(uncaught).toEqual([]);
});

test("the edge function is told so, and nothing else happens, where the connection goes in its place", async () => {
  await expect(openUsers(url)).rejects.toMatchObject({ code: "CONNECTION_CLOSED" });
  expect(uncaught).toEqual([]);
});
