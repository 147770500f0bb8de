/** @jsxRuntime automatic @jsxImportSource preact */
import type { ComponentChildren } from "preact";
import { count, spellOut } from "./report-text.ts";

/** A kind of table of the report: its columns, the first of which names the row. */
export interface TableKind<Row> {
  /** The class of its elements. */
  name: string;
  columns: Column<Row>[];
}

export interface Column<Row> {
  title: string;
  cell(row: Row): ComponentChildren;
  isNumber?: boolean;
  /** It takes the room that the others leave. */
  isWide?: boolean;
}

export function DataTable<Row>({ kind, caption, rows }: { kind: TableKind<Row>; caption: string; rows: Row[] }) {
  const [first, ...others] = kind.columns;
  const classOf = ({ isNumber, isWide }: Column<Row>) =>
    isNumber ? { class: "number" } : isWide ? { class: "wide" } : {};
  return (
    <table class={kind.name}>
      <caption>{caption}</caption>
      <thead>
        <tr>{kind.columns.map((column) => <th scope="col" {...classOf(column)}>{column.title}</th>)}</tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr>
            <th scope="row">{first?.cell(row)}</th>
            {others.map((column) => <td {...classOf(column)}>{column.cell(row)}</td>)}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

interface Folded<Row> {
  kind: TableKind<Row>;
  caption: string;
  rows: Row[];
  noun: string;
  /** A table of more rows is folded. */
  mostUnfolded?: number;
}

/** A table that is folded if it is long. Print unfolds it. */
export function FoldedTable<Row>({ kind, caption, rows, noun, mostUnfolded = 20 }: Folded<Row>) {
  if (rows.length <= mostUnfolded) return <DataTable kind={kind} caption={caption} rows={rows} />;
  return (
    <details>
      <summary>{`${caption} (${count(rows.length, noun)})`}</summary>
      <DataTable kind={kind} caption={caption} rows={rows} />
    </details>
  );
}

/** Code or a name, whatever it is made of: what cannot be seen in it is spelled out, and it does not turn what is around it. */
export function Code({ text }: { text: string }) {
  return <code dir="ltr">{spellOut(text)}</code>;
}

/** Prose that has names in it. */
export function Prose({ text }: { text: string }) {
  return <bdi dir="ltr">{spellOut(text)}</bdi>;
}
