import { type Obstacle } from "./obstacle.ts";
import { authOrgId } from "./organizations.ts";

/** Organizations, and an auth_org_id(), that cannot be used. */
export const organizationObstacles: Record<string, Obstacle> = {
  "auth_org_id() that reads user_metadata": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select (auth.jwt() -> 'user_metadata' ->> 'org_id')::uuid"));
      return { problem: /public\.auth_org_id\(\) reads user_metadata, which every user can write/ };
    },
  },
  "auth_org_id() that returns text": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select auth.jwt() -> 'app_metadata' ->> 'org_id'", "text"));
      return { problem: /public\.auth_org_id\(\) cannot be the default of org_id: it must return uuid/ };
    },
  },
  "auth_org_id() that returns nothing": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select null::uuid"));
      return { problem: /public\.auth_org_id\(\) does not return app_metadata\.org_id of the JWT/ };
    },
  },
  "organizations that require more than a name": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id uuid primary key, name text not null, slug text not null)");
      return { problem: /public\.organizations requires slug/ };
    },
  },
  "organizations that cannot be referenced": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id uuid, name text)");
      return { problem: /public\.organizations cannot be referenced/ };
    },
  },
  "organizations that are a view": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create view public.organizations as select gen_random_uuid() as id, 'One' as name");
      return { problem: /public\.organizations cannot be referenced/ };
    },
  },
};
