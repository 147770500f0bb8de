import type { Application } from "./applications.ts";
import { defaultOrgId } from "./organizations.ts";

const user = (number: number) => `md5('half user ${number}')::uuid`;
const lead = (number: number) => `md5('lead ${number}')::uuid`;
const project = (number: number) => `md5('project ${number}')::uuid`;
/** The second of the application's own organizations. */
const second = "4a1f0000-0000-4000-8000-000000000002";

const written = (theirs: string) => `
  select 'notifications' as table_name, notifications.org_id, ${theirs} as expected
  from public.notifications
  join auth.users on users.id = notifications.user_id
  where user_id = $1
`;

/**
 * Organizations are the application's own. What it has written stays: org_id of projects, organization_id of invoices, and for
 * those who are members of none the organization in the token.
 */
export const halfMigrated: Application = {
  name: "half-migrated",
  mostDecisions: 8,
  had: "select id, org_id from public.projects where org_id is not null",
  members: `
    select users.id as user_id, coalesce(joined.organization_id, claimed.id) as org_id
    from auth.users
    left join lateral (
      select organization_id from public.memberships where user_id = users.id order by created_at limit 1
    ) as joined on true
    left join public.organizations as claimed on claimed.id::text = lower(users.raw_app_meta_data ->> 'org_id')
  `,
  expectations: {
    leads: `
      select leads.*, coalesce(members.org_id, '${defaultOrgId}') as expected
      from public.leads
      left join members on members.user_id = leads.created_by
    `,
    tasks: `
      select tasks.*, coalesce(leads.org_id, '${defaultOrgId}') as expected
      from public.tasks
      left join public.leads on leads.id = tasks.lead_id
    `,
    deals: `
      select deals.*, coalesce(members.org_id, leads.org_id, '${defaultOrgId}') as expected
      from public.deals
      left join public.sales on sales.id = deals.sales_id
      left join members on members.user_id = sales.user_id
      left join public.leads on leads.id = deals.lead_id
    `,
    projects: `
      select projects.*, coalesce(had.org_id, members.org_id, '${defaultOrgId}') as expected
      from public.projects
      left join had on had.id = projects.id
      left join members on members.user_id = projects.owner_id
    `,
    milestones: `
      select milestones.*, projects.org_id as expected
      from public.milestones
      left join public.projects on projects.id = milestones.project_id
    `,
    comments: `
      select comments.*, projects.org_id as expected
      from public.comments
      left join public.projects on projects.id = comments.project_id
    `,
    invoices: `
      select invoices.*, coalesce(invoices.organization_id, members.org_id, '${defaultOrgId}') as expected
      from public.invoices
      left join members on members.user_id = invoices.created_by
    `,
    invoice_lines: `
      select invoice_lines.*, invoices.org_id as expected
      from public.invoice_lines
      left join public.invoices on invoices.id = invoice_lines.invoice_id
    `,
    invitations: "select invitations.*, organization_id as expected from public.invitations",
    notifications: `
      select notifications.*, coalesce(members.org_id, '${defaultOrgId}') as expected
      from public.notifications
      left join members on members.user_id = notifications.user_id
    `,
  },
  withDefault: [
    "leads",
    "tasks",
    "deals",
    "projects",
    "milestones",
    "comments",
    "invoices",
    "invoice_lines",
    "notifications",
  ],
  inserts: [
    {
      what: "a lead of somebody whose organization only the token has, and whose token is old",
      user: user(40),
      statement: `insert into public.leads (name) values ('New')`,
    },
    {
      what: "a task for the lead of a member",
      statement: `insert into public.tasks (lead_id, title) values (${lead(1)}, 'Call')`,
    },
    {
      what: "deals of a salesperson, and of one without an account",
      statement: `
        insert into public.deals (lead_id, sales_id, title)
        values (${lead(2)}, 3, 'With an account'), (${lead(2)}, 5, 'Without one'), (null, 4, 'Without a lead')
      `,
    },
    {
      what: "a project of a member of two organizations, with an old token",
      user: user(26),
      statement: `insert into public.projects (name) values ('New')`,
    },
    {
      what: "a milestone, and a comment of somebody else",
      statement: `
        with milestone as (insert into public.milestones (project_id, title) values (${project(3)}, 'New'))
        insert into public.comments (project_id, user_id, body) values (${project(3)}, ${user(1)}, 'New')
      `,
    },
    {
      what: "an invoice of an organization, whoever wrote it, and one of none",
      statement: `
        insert into public.invoices (id, created_by, organization_id, number)
        values (9001, ${user(3)}, '${second}', 'R-9001'), (9002, ${user(3)}, null, 'R-9002')
      `,
    },
    {
      what: "lines of both",
      statement: `insert into public.invoice_lines (invoice_id, position, amount) values (9001, 1, 1), (9002, 1, 1)`,
    },
    {
      what: "an invitation",
      statement: `
        insert into public.invitations (organization_id, email) values ('${second}', 'friend@half.example.com')
      `,
    },
    {
      what: "a notification of whose token is written in capitals",
      statement: `insert into public.notifications (user_id, body) values (${user(44)}, 'New')`,
    },
  ],
  unplaced: `insert into public.leads (created_by, name) values (${user(45)}, 'Of a user with an empty organization')`,
  upserts: [
    {
      what: "invoice_lines, found by the invoice and the position",
      statement: `
        insert into public.invoice_lines (invoice_id, position, amount)
        select invoice_id, position, 0 from public.invoice_lines order by 1, 2 limit 10
        on conflict (invoice_id, position) do update set amount = excluded.amount
      `,
    },
    {
      what: "projects, whose organization it does not name",
      statement: `
        insert into public.projects (id, owner_id, name)
        select id, owner_id, 'Renamed' from public.projects where owner_id = ${user(2)} order by id
        on conflict (id) do update set name = excluded.name
      `,
    },
  ],
  signUps: [
    {
      who: "an invited user",
      email: "invited1@half.example.com",
      tables: ["notifications"],
      rows: written(`'${second}'::uuid`),
    },
    {
      who: "a user whom nobody invited",
      email: "alone@half.example.com",
      tables: ["notifications"],
      rows: written(`(select id from public.organizations where name = users.email)`),
    },
  ],
};
