import type { Application } from "./applications.ts";
import { defaultOrgId } from "./organizations.ts";

const acme = "c4a70000-0000-4000-8000-00000000000a";
const user = (number: number) => `md5('chat user ${number}')::uuid`;

/** The rows that a sign-up writes for $1: of the user's organization what is the user's, and of the lobby's what is there. */
const written = (theirs: string) => `
  select 'audit_log' as table_name, org_id, '${theirs}'::uuid as expected from public.audit_log where actor = $1
  union all
  select 'channel_members', org_id, '${defaultOrgId}' from public.channel_members where user_id = $1
  union all
  select 'user_roles', org_id, '${theirs}' from public.user_roles where user_id = $1
`;

/** A company is an organization, known by its domain. What is said in a channel belongs to the channel's, whoever says it. */
export const teamChat: Application = {
  name: "team-chat",
  mostDecisions: 4,
  members: `
    select users.id as user_id, organizations.id as org_id
    from auth.users
    join public.organizations on organizations.name = split_part(users.email, '@', 2)
  `,
  expectations: {
    workspaces: `
      select workspaces.*, coalesce(members.org_id, '${defaultOrgId}') as expected
      from public.workspaces
      left join members on members.user_id = workspaces.created_by
    `,
    channels: `
      select channels.*, workspaces.org_id as expected
      from public.channels
      left join public.workspaces on lower(workspaces.slug::text) = lower(channels.workspace::text)
    `,
    channel_members: `
      select channel_members.*, channels.org_id as expected
      from public.channel_members
      left join public.channels on channels.id = channel_members.channel_id
    `,
    messages: `
      select messages.*, channels.org_id as expected
      from public.messages
      left join public.channels on channels.id = messages.channel_id
    `,
    reactions: `
      select reactions.*, messages.org_id as expected
      from public.reactions
      left join public.messages on (messages.id, messages.posted_at) = (message_id, message_posted_at)
    `,
    attachments: `
      select attachments.*, coalesce(messages.org_id, members.org_id, '${defaultOrgId}') as expected
      from public.attachments
      left join public.messages on (messages.id, messages.posted_at) = (message_id, message_posted_at)
      left join members on members.user_id = attachments.uploaded_by
    `,
    user_roles: `
      select user_roles.*, coalesce(members.org_id, '${defaultOrgId}') as expected
      from public.user_roles
      left join members on members.user_id = user_roles.user_id
    `,
    audit_log: `
      select audit_log.*, coalesce(members.org_id, '${defaultOrgId}') as expected
      from public.audit_log
      left join members on members.user_id = audit_log.actor
    `,
  },
  withDefault: ["workspaces", "channels", "channel_members", "attachments", "user_roles", "audit_log"],
  inserts: [
    {
      what: "a workspace",
      statement: `insert into public.workspaces (slug, title, created_by) values ('Hooli', 'Hooli', ${user(2)})`,
    },
    {
      what: "a guest's channel in a workspace that is written otherwise",
      statement: `insert into public.channels (id, workspace, name, created_by) values (9001, 'iNiTeCh', 'new', ${
        user(50)
      })`,
    },
    {
      what: "a guest in that channel",
      statement: `insert into public.channel_members (channel_id, user_id) values (9001, ${user(50)})`,
    },
    {
      what: "what the guest says there, with an old token",
      user: user(50),
      statement: `
        insert into public.messages (id, channel_id, posted_at, body) values (99001, 9001, '2024-12-30 12:00Z', 'Hello')
      `,
    },
    {
      what: "what an employee of another company thinks of it",
      user: user(1),
      statement: `
        insert into public.reactions (message_id, message_posted_at, emoji) values (99001, '2024-12-30 12:00Z', 'tada')
      `,
    },
    {
      what: "a message for a month that has no partition of its own",
      statement: `
        insert into public.messages (channel_id, author_id, posted_at, body) values (102, ${
        user(3)
      }, '2031-01-01', 'Later')
      `,
    },
    {
      what: "a file for the message, one for none, and one that names only half of a message",
      statement: `
        insert into public.attachments (message_id, message_posted_at, uploaded_by, path)
        values
          (99001, '2024-12-30 12:00Z', ${user(1)}, 'new/1.png'),
          (null, null, ${user(1)}, 'new/2.png'),
          (99001, null, ${user(2)}, 'new/3.png')
      `,
    },
    {
      what: "a role and an entry of the log",
      statement: `
        with granted as (insert into public.user_roles (user_id, role) values (${user(5)}, 'admin'))
        insert into public.audit_log (actor, action) values (${user(4)}, 'granted')
      `,
    },
  ],
  unplaced: `insert into public.audit_log (action) values ('cleaned up')`,
  upserts: [
    {
      what: "channel_members, found by the channel and the user",
      statement: `
        insert into public.channel_members (channel_id, user_id, last_read_at)
        select channel_id, user_id, '2025-01-01' from public.channel_members where channel_id > 100 order by 1, 2 limit 10
        on conflict (channel_id, user_id) do update set last_read_at = excluded.last_read_at
      `,
    },
    {
      what: "a workspace, found by a slug in capitals, for somebody of another company",
      statement: `
        insert into public.workspaces (slug, title, created_by) values ('ACME', 'Acme Inc.', ${user(2)})
        on conflict (slug) do update set title = excluded.title
      `,
    },
  ],
  signUps: [
    {
      who: "a stranger",
      email: "stranger@mail.example",
      tables: ["audit_log", "channel_members", "user_roles"],
      forget: "delete from public.audit_log where actor = $1",
      rows: written(defaultOrgId),
    },
    {
      who: "an employee whom an administrator creates",
      email: "hired@elsewhere.example",
      appMetadata: { org_id: acme },
      tables: ["audit_log", "channel_members", "user_roles"],
      forget: "delete from public.audit_log where actor = $1",
      rows: written(acme),
    },
  ],
};
