/** The tables of the report. */
import type { TableKind } from "./report-table.tsx";
import * as outcome from "./report-tables-outcome.tsx";
import * as run from "./report-tables-run.tsx";

export * from "./report-tables-outcome.tsx";
export * from "./report-tables-run.tsx";

/** All kinds of tables, for the style of the page. */
export const kinds = [...Object.values(outcome), ...Object.values(run)] as TableKind<never>[];
