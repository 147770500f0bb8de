import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Suggestion } from "../../cli/adopt-list.ts";
import { askDecisions } from "../../cli/adopt-questions.ts";

/** What somebody at the terminal chooses and types, and what they are asked. */
const terminal = vi.hoisted(() => ({ chosen: [] as string[], typed: "", asked: [] as unknown[] }));

vi.mock("@clack/prompts", () => ({
  isCancel: () => false,
  multiselect: (question: unknown) => {
    terminal.asked.push(question);
    return terminal.chosen;
  },
  text: (question: unknown) => {
    terminal.asked.push(question);
    return terminal.typed;
  },
}));

const suggestion = (table: string, row: string, about: string): Suggestion => ({
  table,
  row,
  about,
  isDecision: about.startsWith("decide: "),
});
const roles = suggestion(
  "public.roles",
  "('public', 'roles', 'excluded', null, 'has nothing', null),",
  "decide: excluded, unless …",
);
const users = suggestion(
  "public.users",
  "('public', 'users', 'org', 'secondary', null, '{id}'),",
  "decide: org, or excluded, if …",
);
const tasks = suggestion(
  "public.tasks",
  "-- ('public', 'tasks', 'org', 'secondary', null, null), or ('public', 'tasks', 'excluded', null, '<why not>', null),",
  "decide: org or excluded; it …",
);
const orders = suggestion(
  "public.orders",
  "('public', 'orders', 'org', 'secondary', null, '{a,b}'),",
  "decide: the order of org_from",
);
const notes = suggestion(
  "public.notes",
  "('public', 'notes', 'org', 'secondary', null, null),",
  "has the column user_id",
);

describe("askDecisions", () => {
  beforeEach(() => Object.assign(terminal, { chosen: [], typed: "", asked: [] }));

  test("asks once about the tables that may or may not get org_id, with what is suggested", async () => {
    terminal.chosen = ["public.users"];
    const suggestions = [roles, users, tasks, orders, notes];
    expect(await askDecisions(suggestions)).toEqual([
      { ...roles, about: "decided: excluded, unless …", isDecision: false },
      { ...users, about: "decided: org, or excluded, if …", isDecision: false },
      tasks,
      orders,
      notes,
    ]);
    expect(terminal.asked).toEqual([
      expect.objectContaining({
        options: ["public.roles", "public.users", "public.tasks"].map((value) => expect.objectContaining({ value })),
        initialValues: ["public.users"],
      }),
    ]);
  });

  test("makes rows of the answers, and asks why a table that looked like one gets none", async () => {
    Object.assign(terminal, { chosen: ["public.roles", "public.tasks"], typed: "the users' mirror" });
    expect((await askDecisions([roles, users, tasks, orders])).map(({ row }) => row)).toEqual([
      "('public', 'roles', 'org', 'secondary', null, null),",
      "('public', 'users', 'excluded', null, 'the users'' mirror', null),",
      "('public', 'tasks', 'org', 'secondary', null, null),",
      orders.row,
    ]);
    expect(terminal.asked).toHaveLength(2);
  });

  test("asks nothing where nothing is open", async () => {
    expect(await askDecisions([orders, notes])).toEqual([orders, notes]);
    expect(terminal.asked).toEqual([]);
  });
});
