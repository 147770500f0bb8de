begin;
set local role postgres;
set local search_path = public, extensions;
select plan(2);

create function pg_temp.rules_out() returns table (signature text, says text[]) language sql as $function$
    select oid::regprocedure::text, proconfig
    from pg_proc
    where pronamespace in ('tenancy'::regnamespace, 'org_migration'::regnamespace)
        and exists (select from unnest(proconfig) as setting where setting like 'enable\_%=off')
$function$;

-- A scan or join that is off and needed all the same counts as so dear that a server with LLVM would compile the plan, with each call anew.
select is_empty(
    $$ select signature from pg_temp.rules_out() where 'jit=off' <> all (says) $$,
    'a function that rules out a kind of scan or join rules out its compilation as well'
);
select isnt_empty('select from pg_temp.rules_out()', 'and there are such functions');

select * from finish();
rollback;
