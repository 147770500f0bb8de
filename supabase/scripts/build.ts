/**
 * npm run build: writes what is generated: supabase/preflight.sql from the views of the migrations, and docs/reference.md from
 * their comments. With --check it writes nothing, and exits 1 where one of them differs.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root } from "../local/project.ts";
import { composePreflight } from "./preflight.ts";
import { composeReference } from "./reference.ts";

const generated: Record<string, () => string> = {
  "supabase/preflight.sql": composePreflight,
  "docs/reference.md": composeReference,
};

const { values } = parseArgs({
  options: { check: { type: "boolean", default: false }, help: { type: "boolean", short: "h" } },
});
if (values.help) {
  console.log(
    `npm run build -- [--check]: writes ${
      Object.keys(generated).join(" and ")
    }, or says which of them is not up to date.`,
  );
  process.exit();
}
for (const [name, compose] of Object.entries(generated)) {
  const file = join(root, name);
  const text = compose();
  if (!values.check) {
    writeFileSync(file, text);
    console.log(`wrote ${name}`);
  } else if (text !== readFileSync(file, "utf8")) {
    console.log(`${name} is not what the migrations say: run npm run build, and commit it`);
    process.exitCode = 1;
  }
}
