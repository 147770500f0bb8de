begin;
set local role postgres;
set local search_path = public, extensions;
select plan((select 2 * count(*)::integer from tenancy.registry where scope = 'org') + 9);
-- Its own tables are not for the guard against unclassified ones, where that is on.
select tenancy.stop_guarding_new_tables();

select has_trigger(
    schema_name,
    table_name,
    tgname,
    format('%I.%I has its org_id_immutable trigger', schema_name, table_name)
)
from tenancy.org_scoped_tables
left join pg_trigger
    on tgrelid = relation
    and tgname = tenancy.name_of('guard', relation);

select is(
    (select tgenabled from pg_trigger where tgrelid = relation and tgname = tenancy.name_of('guard', relation)),
    'A',
    format('and on %I.%I it fires always, in a replica session too', schema_name, table_name)
)
from tenancy.org_scoped_tables;

-- As shipped: phase 2 then gives every row its value with the column.
delete from tenancy.user_orgs;
create schema harbour;
create table harbour.ships (id integer primary key, user_id uuid, name text);
insert into harbour.ships (id, name) values (1, 'Argo');
insert into tenancy.registry (schema_name, table_name, scope, priority)
values ('harbour', 'ships', 'org', 'secondary');
insert into public.organizations (id, name) values ('b0000000-0000-4000-8000-000000000001', 'one');

create function pg_temp.run(step text)
returns void
language plpgsql
as $function$
begin
    while tenancy.next_step(array[step]) is not null loop
        null;
    end loop;
end
$function$;
select pg_temp.run('record_table_before');
select pg_temp.run('add_org_id');
select pg_temp.run('make_org_id_immutable');

select throws_ok(
    $$ update harbour.ships set org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    '23001',
    'org_id of harbour.ships is immutable',
    'a row cannot go to another organization'
);
select throws_ok(
    $$ update harbour.ships set org_id = null $$,
    '23001',
    'org_id of harbour.ships is immutable',
    'nor to none'
);
select throws_ok(
    $$
        insert into harbour.ships (id, org_id)
        values (1, 'b0000000-0000-4000-8000-000000000001')
        on conflict (id) do update
        set org_id = excluded.org_id
    $$,
    '23001',
    'org_id of harbour.ships is immutable',
    'nor by an upsert'
);
select lives_ok($$ update harbour.ships set name = 'Argo II' $$, 'other columns change as before');
select lives_ok($$ update harbour.ships set org_id = org_id $$, 'an update that sends the same org_id is none');

set local session_replication_role = replica;
select throws_ok(
    $$ update harbour.ships set org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    '23001',
    'org_id of harbour.ships is immutable',
    'a replica session cannot pass the trigger by'
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
    'org_id of harbour.ships is immutable',
    'another trigger cannot change it on the way'
);
drop trigger zzz_move on harbour.ships;

alter table harbour.ships disable trigger org_id_immutable_ships;
select ok(
    tenancy.next_step('{make_org_id_immutable}') is not null,
    'a trigger that somebody disabled is not taken for done'
);
select throws_ok(
    $$ update harbour.ships set org_id = 'b0000000-0000-4000-8000-000000000001' $$,
    '23001',
    'org_id of harbour.ships is immutable',
    'and is enabled again'
);

select * from finish();
rollback;
