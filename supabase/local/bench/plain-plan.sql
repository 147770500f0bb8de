-- The plan as it is usually written, all of it in one migration and so in one transaction: column with its foreign key, index,
-- one UPDATE, CHECK and NOT NULL, a BEFORE trigger. Only the list of tables comes from the registry. Each phase notes its end.

set statement_timeout = 0;

create schema bench;
create table bench.phases (name text, ended_at timestamptz);
insert into bench.phases values ('start', clock_timestamp());

create function public.prevent_org_id_change() returns trigger language plpgsql as $function$
begin
    if old.org_id is distinct from new.org_id then
        raise exception 'org_id cannot be changed';
    end if;
    return new;
end
$function$;

do $do$
declare
    target record;
    mapped constant boolean := exists (select from tenancy.user_orgs);
    source record;
begin
    for target in select * from tenancy.org_scoped_tables order by position loop
        execute format(
            'alter table %s add column if not exists org_id uuid references public.organizations (id) on delete cascade',
            target.relation
        );
    end loop;
    insert into bench.phases values ('columns', clock_timestamp());

    for target in select * from tenancy.org_scoped_tables order by position loop
        execute format('create index if not exists idx_%s_org_id on %s (org_id)', target.table_name, target.relation);
    end loop;
    insert into bench.phases values ('indexes', clock_timestamp());

    for target in select * from tenancy.org_scoped_tables order by position loop
        for source in select * from tenancy.sources where mapped and root = target.relation order by ordinal loop
            if source.kind = 'owner' then
                execute format(
                    'update %s as todo set org_id = user_orgs.org_id from tenancy.user_orgs where todo.org_id is null and user_orgs.user_id = todo.%I',
                    target.relation,
                    source.entry
                );
            else
                execute format(
                    'update %1$s as child set org_id = parent.org_id from %2$s as parent where child.org_id is null and parent.id = child.%3$I',
                    target.relation,
                    source.parent,
                    source.entry
                );
            end if;
        end loop;
        execute format(
            'update %s set org_id = ''a0000000-0000-0000-0000-000000000001'' where org_id is null',
            target.relation
        );
    end loop;
    insert into bench.phases values ('backfill', clock_timestamp());

    for target in select * from tenancy.org_scoped_tables order by position loop
        execute format(
            'alter table %s add constraint %I check (org_id is not null), alter column org_id set not null',
            target.relation,
            target.table_name || '_org_id_not_null'
        );
    end loop;
    insert into bench.phases values ('not_null', clock_timestamp());

    for target in select * from tenancy.org_scoped_tables order by position loop
        execute format(
            'create trigger org_id_immutable_%s before update on %s for each row execute function public.prevent_org_id_change()',
            target.table_name,
            target.relation
        );
    end loop;
    insert into bench.phases values ('immutability', clock_timestamp());
end
$do$;
