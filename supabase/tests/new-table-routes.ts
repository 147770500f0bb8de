/** What finds a table that comes by this route: the new-table check at once, verify() later, or nothing, since it is no new table. */
export type Net = "the check" | "verify()" | "neither";
export interface Route {
  name: string;
  net: Net;
  sql: string;
  /** The table; marina.escapee unless given. */
  table?: string;
  /** What the owner does before and after, out of the check's way. */
  before?: string;
  after?: string;
  /** It takes more than the right to create a table in the schema. */
  ownerOnly?: true;
}

export const routes: Route[] = [
  { name: "CREATE TABLE", net: "the check", sql: "create table marina.escapee (id integer)" },
  {
    name: "CREATE TABLE IF NOT EXISTS",
    net: "the check",
    sql: "create table if not exists marina.escapee (id integer)",
  },
  {
    name: "CREATE TABLE with a user_id",
    net: "the check",
    sql: "create table marina.escapee (id integer, user_id uuid)",
  },
  { name: "CREATE UNLOGGED TABLE", net: "the check", sql: "create unlogged table marina.escapee (id integer)" },
  { name: "CREATE TABLE LIKE", net: "the check", sql: "create table marina.escapee (like marina.ships including all)" },
  {
    name: "CREATE TABLE INHERITS",
    net: "the check",
    ownerOnly: true,
    sql: "create table marina.escapee () inherits (marina.lists)",
  },
  { name: "CREATE TABLE OF a type", net: "the check", sql: "create table marina.escapee of marina.form" },
  { name: "CREATE TABLE AS", net: "the check", sql: "create table marina.escapee as select 1 as id" },
  {
    name: "CREATE TABLE AS WITH NO DATA",
    net: "the check",
    sql: "create table marina.escapee as select 1 as id with no data",
  },
  {
    name: "CREATE TABLE AS EXECUTE",
    net: "the check",
    before: "prepare known as select 1 as id",
    after: "deallocate known",
    sql: "create table marina.escapee as execute known",
  },
  { name: "SELECT INTO", net: "the check", sql: "select 1 as id into marina.escapee" },
  {
    name: "CREATE TABLE PARTITION BY",
    net: "the check",
    sql: "create table marina.escapee (id integer) partition by list (id)",
  },
  {
    name: "CREATE SCHEMA with a table in it",
    net: "the check",
    ownerOnly: true,
    sql: "create schema cove create table escapee (id integer)",
    table: "cove.escapee",
  },
  {
    name: "CREATE FOREIGN TABLE",
    net: "the check",
    sql: "create foreign table marina.escapee (id integer) server elsewhere",
  },
  {
    name: "IMPORT FOREIGN SCHEMA",
    net: "the check",
    ownerOnly: true,
    sql: "import foreign schema far limit to (escapee) from server elsewhere into marina",
  },
  {
    name: "a DO block",
    net: "the check",
    sql: "do $$ begin execute 'create table marina.escapee (id integer)'; end $$",
  },
  {
    name: "a function",
    net: "the check",
    before: `create function marina.build() returns void language sql security definer as
      'create table marina.escapee (id integer)'`,
    sql: "select marina.build()",
  },
  {
    name: "a second table in one statement list",
    net: "the check",
    sql: "create temporary table passing (id integer); create table marina.escapee (id integer)",
  },
  { name: "CREATE TEMPORARY TABLE", net: "neither", sql: "create temporary table escapee (id integer)" },
  { name: "a table in pg_temp", net: "neither", sql: "create table pg_temp.escapee (id integer)" },
  {
    name: "a partition of a registered table",
    net: "neither",
    ownerOnly: true,
    sql: "create table marina.escapee partition of marina.voyages for values in (2)",
  },
  {
    name: "a partition, with partitions, of a registered table",
    net: "neither",
    ownerOnly: true,
    sql: "create table marina.escapee partition of marina.voyages for values in (2) partition by list (id)",
  },
  { name: "a view", net: "neither", sql: "create view marina.escapee as select 1 as id" },
  { name: "a materialized view", net: "neither", sql: "create materialized view marina.escapee as select 1 as id" },
  { name: "a sequence", net: "neither", sql: "create sequence marina.escapee" },
  { name: "a type", net: "neither", sql: "create type marina.escapee as (id integer)" },
  {
    name: "a table of the platform's",
    net: "neither",
    ownerOnly: true,
    before: "create schema if not exists realtime",
    sql: "create table realtime.escapee (id integer)",
  },
  {
    name: "a table that was there before the check",
    net: "verify()",
    ownerOnly: true,
    sql: `alter event trigger tenancy_new_table_check disable;
      create table marina.escapee (id integer);
      alter event trigger tenancy_new_table_check enable`,
  },
  {
    name: "a registered table that gets another name",
    net: "neither",
    ownerOnly: true,
    sql: "alter table marina.lists rename to escapee",
  },
  {
    name: "a table of the platform's that goes to another schema",
    net: "verify()",
    ownerOnly: true,
    before: "create schema if not exists realtime; create table realtime.escapee (id integer)",
    sql: "alter table realtime.escapee set schema marina",
  },
  {
    name: "a partition that is detached",
    net: "verify()",
    ownerOnly: true,
    before: "create table marina.escapee partition of marina.voyages for values in (2)",
    sql: "alter table marina.voyages detach partition marina.escapee",
  },
  {
    name: "a row of the registry that is deleted",
    net: "verify()",
    ownerOnly: true,
    before:
      "insert into tenancy.registry values ('marina', 'escapee', 'excluded', null, 'a test'); create table marina.escapee (id integer)",
    sql: "delete from tenancy.registry where table_name = 'escapee'",
  },
  {
    name: "a replica session",
    net: "the check",
    ownerOnly: true,
    before: "set local session_replication_role = replica",
    sql: "create table marina.escapee (id integer)",
  },
];
