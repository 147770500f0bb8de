/** What the checks of tenancy.verify() mean, in the order in which the report lists them. */
const meanings: Record<string, string> = {
  registry: "Every table is classified, and nothing would stop a push.",
  auth_org_id: "public.auth_org_id() trusts app_metadata of the JWT and nothing else.",
  column: "The table has org_id, a uuid.",
  default: "The default of org_id is the organization of the JWT.",
  filler: "A trigger gives rows that come without org_id their organization.",
  fillers: "The fillers decide as the registry and the foreign keys say.",
  index: "An index over all rows begins with org_id.",
  index_root: "So does that of the partitioned table.",
  invalid_index: "No index was left invalid.",
  foreign_key: "org_id references public.organizations.",
  foreign_key_valid: "All rows were held against that foreign key.",
  foreign_key_root: "The partitioned table has it as well.",
  check: "A CHECK refuses a row without org_id.",
  check_valid: "All rows were held against that CHECK.",
  not_null: "org_id is NOT NULL.",
  guard: "A trigger refuses to change the org_id of a row.",
  guard_move: "Also where a row moves to another partition.",
  guard_statement: "Also where it moves by a statement that fires no trigger per row.",
  no_nulls: "No row is without organization.",
  row_count: "No row was lost since the push began, as far as the statistics tell.",
  users: "Every user has their organization in app_metadata.",
  isolation: "Where isolation was switched on, its policy is whole and in force.",
  binding: "Where binding was switched on, foreign keys compare the organization, too.",
  binding_valid: "All rows were held against those foreign keys.",
  bound_keys: "No bound foreign key was dropped since.",
  least_privilege: "Where it was switched on, the API's roles have no privilege that gets past policies and guards.",
  api_privileges: "No role of the API gets past the isolation of an isolated table.",
};
const names = Object.keys(meanings);

export function meaningOf(check: string): string {
  return meanings[check] ?? "";
}

/** The place of a check in the list; one that is not there comes last. */
export function rankOf(check: string): number {
  const at = names.indexOf(check);
  return at < 0 ? names.length : at;
}
