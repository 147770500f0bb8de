import { type Obstacle } from "./obstacle.ts";
import { authOrgId, careful } from "./organizations.ts";

/** Organizations, and an auth_org_id(), that cannot be used. */
export const organizationObstacles: Record<string, Obstacle> = {
  "auth_org_id() that reads user_metadata": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select (auth.jwt() -> 'user_metadata' ->> 'org_id')::uuid"));
      return { code: "auth_org_id_wrong" };
    },
  },
  "auth_org_id() that raises for what is no uuid": {
    withoutOrganizations: true,
    isUnforeseen: true,
    plant: ({ script }) => {
      script.push(authOrgId("select (auth.jwt() -> 'app_metadata' ->> 'org_id')::uuid"));
      return { code: "auth_org_id_wrong" };
    },
  },
  "auth_org_id() that nobody can call": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(
        authOrgId(careful),
        "revoke execute on function public.auth_org_id() from public, anon, authenticated",
      );
      return { code: "auth_org_id_not_callable" };
    },
  },
  "auth_org_id() that returns text": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select auth.jwt() -> 'app_metadata' ->> 'org_id'", "text"));
      return { code: "auth_org_id_not_uuid" };
    },
  },
  "auth_org_id() that returns nothing": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push(authOrgId("select null::uuid"));
      return { code: "auth_org_id_wrong" };
    },
  },
  "organizations that require more than a name": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id uuid primary key, name text not null, slug text not null)");
      return { code: "no_default_organization" };
    },
  },
  "organizations that cannot be referenced": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id uuid, name text)");
      return { code: "organizations_not_referable" };
    },
  },
  "organizations whose ids are numbers": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create table public.organizations (id bigint primary key, name text not null)");
      return { code: "organizations_not_referable" };
    },
  },
  "organizations that are a view": {
    withoutOrganizations: true,
    plant: ({ script }) => {
      script.push("create view public.organizations as select gen_random_uuid() as id, 'One' as name");
      return { code: "organizations_not_referable" };
    },
  },
};
