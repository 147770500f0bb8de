/** Ids of so many organizations, always the same. */
export const organizationIds = (count: number): string[] =>
  Array.from({ length: count }, (_, number) => `b0000000-0000-4000-8000-${String(number + 1).padStart(12, "0")}`);

/** SQL for the end of the list of tables: creates these organizations and maps the users to them in turn. */
export function mapUsers(ids: string[]): string {
  const organizations = ids.map((id, number) => `('${id}', 'Organization ${number + 1}')`).join(", ");
  return `
    insert into public.organizations (id, name)
    values ${organizations}
    on conflict do nothing;
    insert into tenancy.user_orgs (user_id, org_id)
    select id, (array[${
    ids.map((id) => `'${id}'`).join(", ")
  }]::uuid[])[1 + (row_number() over (order by id) - 1) % ${ids.length}]
    from auth.users
    on conflict do nothing;
  `;
}
