import { defaultOrgId } from "../organizations.ts";
import { type Draft } from "./draft.ts";
import { literal } from "./names.ts";
import { goneUsers } from "./tables.ts";

/** Who belongs where. A schema has one of these. */
export const mappings = [
  "one organization",
  "a few organizations",
  "an organization for some",
  "personal organizations",
];

/** What the application can have of organizations before the push, each with how many of a hundred schemas have it. */
export const organizationFeatures: Record<string, number> = {
  "organizations are there": 10,
  "organizations with more columns": 8,
  "organizations that require more columns": 8,
  "auth_org_id() is there": 15,
};

const organizationTables: Record<string, string> = {
  "organizations are there": "(id uuid primary key, name text not null)",
  "organizations with more columns":
    "(name text not null, plan text not null default 'free', id uuid primary key default gen_random_uuid(), seats integer)",
  "organizations that require more columns": "(slug text not null, id uuid not null unique, name text)",
};

export const authOrgId = (body: string, type = "uuid"): string =>
  `create function public.auth_org_id() returns ${type} language sql stable as $auth_org_id$ ${body} $auth_org_id$`;

/** Makes what the application has of organizations. Tables that have org_id already need them. */
export function createOrganizations(draft: Draft, isNeeded: boolean): void {
  const { traits, script, used, organizations } = draft;
  const wished = Object.keys(organizationTables).find((name) => traits.has(name)) ??
    (isNeeded ? "organizations are there" : undefined);
  if (wished) {
    used.add(wished);
    const ids = [defaultOrgId, ...organizations];
    const required = wished === "organizations that require more columns";
    script.push(
      `create table public.organizations ${organizationTables[wished]}`,
      `insert into public.organizations (id, name${required ? ", slug" : ""}) values ${
        ids.map((id, number) => `(${literal(id)}, 'Organization ${number}'${required ? `, 'org-${number}'` : ""})`)
          .join(", ")
      }`,
    );
  }
  if (traits.has("auth_org_id() is there") || isNeeded) {
    used.add("auth_org_id() is there");
    script.push(
      authOrgId(
        "select (nullif(current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' ->> 'org_id')::uuid",
      ),
    );
  }
}

/** The statements for the end of the list, that say who belongs where. */
export function mapUsers(draft: Draft, mapping: string): string {
  const { random, users, organizations, used } = draft;
  used.add(mapping);
  if (mapping === "one organization") return "";
  const hasOwnTable = Object.keys(organizationTables).some((name) => used.has(name));
  const create = (ids: string[]) =>
    hasOwnTable
      ? ""
      : `insert into public.organizations (id, name) values ${
        ids.map((id) => `(${literal(id)}, 'Organization')`).join(", ")
      };\n`;
  if (mapping === "personal organizations" && !used.has("organizations that require more columns")) {
    return "select tenancy.create_personal_organizations();";
  }
  const mapped = mapping === "an organization for some"
    ? users.slice(0, users.length / 2)
    : [...users, ...goneUsers(draft).slice(0, 1)];
  return `${create(organizations)}insert into tenancy.user_orgs (user_id, org_id) values ${
    mapped.map((user) => `(${literal(user)}, ${literal(random.pick(organizations))})`).join(", ")
  };`;
}
