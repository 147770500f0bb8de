begin;
set local role postgres;
set local search_path = public, extensions;
select plan((select 5 * count(*)::integer from tenancy.registry where scope = 'org'));

select has_column(schema_name, table_name, 'org_id', format('%I.%I has org_id', schema_name, table_name))
from tenancy.org_scoped_tables;

select col_type_is(
    schema_name,
    table_name,
    'org_id',
    'pg_catalog',
    'uuid',
    format('org_id of %I.%I is uuid', schema_name, table_name)
)
from tenancy.org_scoped_tables;

select col_default_is(
    schema_name,
    table_name,
    'org_id',
    'auth_org_id()',
    format('org_id of %I.%I comes from the request where it is not sent', schema_name, table_name)
)
from tenancy.org_scoped_tables;

select isnt_empty(
    format(
        $query$
            select
            from information_schema.referential_constraints
            join information_schema.key_column_usage as referencing
                using (constraint_schema, constraint_name)
            join information_schema.constraint_column_usage as referenced
                using (constraint_schema, constraint_name)
            where referencing.table_schema = %L
                and referencing.table_name = %L
                and referencing.column_name = 'org_id'
                and referenced.table_name = 'organizations'
                and referenced.column_name = 'id'
                and referential_constraints.delete_rule = 'CASCADE'
        $query$,
        schema_name,
        table_name
    ),
    format('org_id of %I.%I references organizations and goes with its organization', schema_name, table_name)
)
from tenancy.org_scoped_tables;

select isnt_empty(
    format(
        $query$
            select
            from pg_index
            where indrelid = %L::regclass
                and indisvalid
                and pg_get_indexdef(indexrelid, 1, true) = 'org_id'
        $query$,
        relation::text
    ),
    format('org_id of %I.%I has a valid index', schema_name, table_name)
)
from tenancy.org_scoped_tables;

select * from finish();
rollback;
