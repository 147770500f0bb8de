begin;
set local role postgres;
set local search_path = public, extensions;
select plan((select 2 * count(*)::integer from tenancy.registry where scope = 'org') + 12);
-- The new-table check, where it is on, would refuse this file's own tables.
select tenancy.disable_new_table_check();

select is(
    (
        select count(*)::integer
        from pg_trigger
        where tgrelid = relation
            and tgfoid = 'tenancy.refuse_org_id_change()'::regprocedure
            and pg_get_triggerdef(oid) like
                '% AFTER UPDATE ON % FOR EACH ROW WHEN ((old.org_id IS DISTINCT FROM new.org_id)) EXECUTE FUNCTION %'
    ),
    1,
    format('%I.%I has its guard, after whatever else an update does', schema_name, table_name)
)
from tenancy.org_scoped_tables;

select is_empty(
    format(
        $query$
            select tgname
            from pg_trigger
            where tgrelid = %L::regclass
                and tgfoid = 'tenancy.refuse_org_id_change()'::regprocedure
                and tgenabled <> 'A'
        $query$,
        relation::text
    ),
    format('and on %I.%I it fires always, in a replica session too', schema_name, table_name)
)
from tenancy.org_scoped_tables;

-- As shipped: phase 2 then gives every row its value with the column.
delete from tenancy.user_orgs;
select tenancy.disable_new_users();
update auth.users set raw_app_meta_data = raw_app_meta_data - 'org_id' where raw_app_meta_data ? 'org_id';
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, name text);
insert into harbour.ships (id, name) values (1, 'Argo');
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');

do $$ begin while tenancy.advance('count') loop null; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop null; end loop; end $$;
do $$ begin while tenancy.advance('guard', 'guard_statement') loop null; end loop; end $$;

select throws_ok(
    $$ update harbour.ships set org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    '23001',
    format(
        'org_id of harbour.ships is immutable: a row of organization %s would go to b0000000-0000-4000-8000-000000000001',
        (select default_org_id from tenancy.settings)
    ),
    'a row cannot go to another organization'
);
select throws_ok(
    $$ update harbour.ships set org_id = null $$,
    '23001',
    format(
        'org_id of harbour.ships is immutable: a row of organization %s would go to none',
        (select default_org_id from tenancy.settings)
    ),
    'nor to none, also before the column is NOT NULL'
);
select throws_ok(
    $$
        insert into harbour.ships (id, org_id)
        values (1, 'b0000000-0000-4000-8000-000000000001')
        on conflict (id) do update
        set org_id = excluded.org_id
    $$,
    '23001',
    null,
    'nor by an upsert'
);
select lives_ok($$ update harbour.ships set name = 'Argo II' $$, 'other columns change as before');
select lives_ok($$ update harbour.ships set org_id = org_id $$, 'an update that sends the same org_id is none');

set local session_replication_role = replica;
select throws_ok(
    $$ update harbour.ships set org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    '23001',
    null,
    'a replica session cannot pass the guard by'
);
set local session_replication_role = origin;

create function harbour.move()
returns trigger
language plpgsql
as $function$
begin
    new.org_id := 'b0000000-0000-4000-8000-000000000001';
    return new;
end
$function$;
create trigger zzz_move before update on harbour.ships for each row execute function harbour.move();
select throws_ok(
    $$ update harbour.ships set name = 'Argo III' $$,
    '23001',
    null,
    'another trigger cannot change it on the way, whatever its name'
);
drop trigger zzz_move on harbour.ships;
select lives_ok($$ update harbour.ships set name = 'Argo III' $$, 'without that trigger the same update goes through');

alter table harbour.ships disable trigger org_id_immutable_ships;
select ok(
    not (select present from tenancy.parts('harbour.ships') where part = 'guard'),
    'a guard that somebody disabled is not taken for present'
);
do $$ begin while tenancy.advance('guard') loop null; end loop; end $$;
select throws_ok(
    $$ update harbour.ships set org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    '23001',
    null,
    'and is enabled again'
);

alter table harbour.ships alter column org_id set not null;
select throws_ok(
    $$ update harbour.ships set org_id = null $$,
    '23502',
    null,
    'where the column is NOT NULL, an update to none meets that first'
);
select lives_ok(
    $$ delete from public.organizations where id = 'b0000000-0000-4000-8000-000000000001' $$,
    'an organization without rows can be deleted as before'
);

select * from finish();
rollback;
