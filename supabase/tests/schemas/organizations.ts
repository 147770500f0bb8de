import { defaultOrgId } from "../organizations.ts";
import { type Draft } from "./draft.ts";
import { literal } from "./names.ts";
import { goneUsers } from "./owners.ts";

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
  "users placed by app_metadata": 20,
  "claims that count as missing": 15,
  "users in no organization": 12,
  "users in several organizations": 30,
};

const organizationTables: Record<string, string> = {
  "organizations are there": "(id uuid primary key, name text not null)",
  "organizations with more columns":
    "(name text not null, plan text not null default 'free', id uuid primary key default gen_random_uuid(), seats integer)",
  "organizations that require more columns": "(slug text not null, id uuid not null unique, name text)",
};

export const authOrgId = (body: string, type = "uuid"): string =>
  `create function public.auth_org_id() returns ${type} language sql stable as $auth_org_id$ ${body} $auth_org_id$`;

/** As it is to be: NULL for whatever is no uuid, and never an error. */
export const careful = `
  select case when claim ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then claim::uuid end
  from (select nullif(current_setting('request.jwt.claims', true), '')::jsonb #>> '{app_metadata,org_id}' as claim) as token
`;

/** What app_metadata.org_id can be without being an organization's id. */
const noOrganization = [
  "",
  "default",
  "00000000-0000-0000-0000-000000000001",
  "{a0000000-0000-0000-0000-000000000001}",
  " a0000000-0000-0000-0000-000000000001",
  42,
  null,
  { id: "a0000000-0000-0000-0000-000000000001" },
];

/** The statements that give users what app_metadata says of their organization. */
export function claimOrganizations({ traits, used, random, users, organizations, script }: Draft): void {
  const claim = (feature: string, numbers: number[], value: () => unknown) => {
    if (!traits.has(feature)) return;
    used.add(feature);
    for (const number of numbers) {
      const metadata = JSON.stringify({ provider: "email", org_id: value() });
      script.push(
        `update auth.users set raw_app_meta_data = ${literal(metadata)} where id = ${literal(users[number] as string)}`,
      );
    }
  };
  claim("users placed by app_metadata", [1, 3, 4], () => {
    const id = random.pick(organizations);
    return random.below(3) === 0 ? id.toUpperCase() : id;
  });
  claim("claims that count as missing", [0, 2, 5], () => random.pick(noOrganization));
}

/** Makes what the application has of organizations: what has org_id already needs both, what names one needs them. */
export function createOrganizations(draft: Draft, isNeeded: boolean, isAuthNeeded: boolean): void {
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
  if (traits.has("auth_org_id() is there") || isAuthNeeded) {
    used.add("auth_org_id() is there");
    script.push(authOrgId(careful));
  }
}

/** Who belongs where, as the list says it, and as the preflight is told. */
export interface Mapping {
  statements: string;
  query: string | undefined;
}

export const noMapping = "one organization";

/** Whether there is a mapping, be it that some are in no organization. */
export const isMapped = ({ traits }: Draft, mapping: string): boolean =>
  mapping !== noMapping || traits.has("users in no organization");

/** The statements above the check of the list, that say who belongs where. */
export function mapUsers(draft: Draft, mapping: string): Mapping {
  const { random, traits, users, organizations, used } = draft;
  used.add(mapping);
  // With nobody else in it, they would be no mapping.
  const without = traits.has("users in no organization") && mapping !== noMapping
    ? [users[4] as string, goneUsers(draft)[1] as string]
    : [];
  if (without.length > 0) used.add("users in no organization");
  const isPersonal = mapping === "personal organizations" && !used.has("organizations that require more columns");
  const isEveryone = mapping === "a few organizations" || mapping === "personal organizations";
  // Those whom app_metadata may place are mostly left to it.
  const isLeft = (number: number) => traits.has("users placed by app_metadata") && [1, 3].includes(number);
  const mapped = mapping === noMapping || isPersonal
    ? []
    : isEveryone
    ? [...users.filter((_, number) => !isLeft(number)), ...goneUsers(draft).slice(0, 1)]
    : users.slice(0, users.length / 2);
  const placed = mapped.filter((user) => !without.includes(user)).map((user) =>
    `(${literal(user)}, ${literal(random.pick(organizations))})`
  );
  const others = without.map((user) => ` and id <> ${literal(user)}`).join("");
  const rows = [...placed, ...without.map((user) => `(${literal(user)}, null)`)].join(", ");
  const several = traits.has("users in several organizations") ? placed.length : 0;
  if (several > 0) used.add("users in several organizations");
  const memberships = random.shuffle(mapped.filter((user) => !without.includes(user))).slice(0, Math.ceil(several / 2))
    .flatMap((user) =>
      random.shuffle(organizations).slice(0, 1 + random.below(organizations.length)).map((id) =>
        `(${literal(user)}, ${literal(id)})`
      )
    ).join(", ");
  const hasOwnTable = Object.keys(organizationTables).some((name) => used.has(name));
  const created = organizations.map((id) => `(${literal(id)}, 'Organization')`).join(", ");
  return {
    statements: [
      mapped.length > 0 && !hasOwnTable ? `insert into public.organizations (id, name) values ${created};` : "",
      rows ? `insert into tenancy.user_orgs (user_id, org_id) values ${rows};` : "",
      memberships ? `insert into tenancy.memberships (user_id, org_id) values ${memberships};` : "",
      isPersonal ? "select tenancy.create_personal_organizations();" : "",
    ].join("\n"),
    query: [
      ...(rows ? [`select user_id::uuid, org_id::uuid from (values ${rows}) as mapping (user_id, org_id)`] : []),
      ...(isPersonal ? [`select id, gen_random_uuid() from auth.users where true${others}`] : []),
    ].join(" union all ") || undefined,
  };
}
