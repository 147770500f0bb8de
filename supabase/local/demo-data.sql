-- Users and rows for the application before the migration. Every table is filled from its own definition, parents first:
-- the n-th row goes to the n-th user and references the n-th row of each parent, so whole trees belong to one user.
-- Where no foreign key forbids it, every twentieth row is an orphan: its user is gone.

create function pg_temp.create_users(user_count integer, password text)
returns void
language sql
as $function$
    insert into auth.users (
        instance_id,
        id,
        aud,
        role,
        email,
        encrypted_password,
        email_confirmed_at,
        confirmation_token,
        recovery_token,
        email_change_token_new,
        email_change,
        raw_app_meta_data,
        raw_user_meta_data,
        created_at,
        updated_at
    )
    select
        '00000000-0000-0000-0000-000000000000',
        md5('user ' || n)::uuid,
        'authenticated',
        'authenticated',
        format('user%s@example.com', n),
        extensions.crypt(password, salt.value),
        now(),
        '',
        '',
        '',
        '',
        '{"provider": "email", "providers": ["email"]}',
        jsonb_build_object('full_name', 'User ' || n),
        now() - interval '1 year',
        now() - interval '1 year'
    from generate_series(1, user_count) as n
    cross join (select extensions.gen_salt('bf', 4)) as salt (value)
$function$;

create function pg_temp.column_value(
    column_name text,
    column_type regtype,
    parent regclass,
    parent_column text
)
returns text
language sql
as $function$
    select case
        when parent is not null then format(
            '(array(select %I from %s order by 1))[1 + (n - 1) %% greatest((select count(*) from %s), 1)]',
            parent_column,
            parent,
            parent
        )
        when column_name = 'user_id' then
            'case when n % 20 = 0 then md5(''gone '' || n)::uuid'
            ' else (array(select id from auth.users order by 1))[1 + (n - 1) % (select count(*) from auth.users)] end'
        when column_name = 'phone_number' then '''+1555'' || lpad(n::text, 7, ''0'')'
        when column_type = 'uuid'::regtype then format('md5(%L || n)::uuid', column_name)
        when column_type = 'text'::regtype then format('%L || n', replace(column_name, '_', ' ') || ' ')
        when column_type = 'date'::regtype then 'current_date - n'
        when column_type = 'timestamptz'::regtype then 'now() - n * interval ''1 minute'''
        when column_type = 'jsonb'::regtype then 'jsonb_build_object(''n'', n)'
        when column_type = 'boolean'::regtype then 'n % 2 = 0'
        else format('(n %% 100)::%s', column_type)
    end
$function$;

create function pg_temp.fill_table(target regclass, row_count integer)
returns void
language plpgsql
as $function$
declare
    columns text;
    expressions text;
begin
    select
        string_agg(format('%I', attribute.attname), ', ' order by attribute.attnum),
        string_agg(
            pg_temp.column_value(attribute.attname, attribute.atttypid, reference.confrelid, referenced.attname),
            ', '
            order by attribute.attnum
        )
    into
        columns,
        expressions
    from pg_catalog.pg_attribute as attribute
    left join pg_catalog.pg_constraint as reference
        on reference.conrelid = attribute.attrelid
        and reference.contype = 'f'
        and reference.conkey = array[attribute.attnum]
    left join pg_catalog.pg_attribute as referenced
        on referenced.attrelid = reference.confrelid
        and referenced.attnum = reference.confkey[1]
    where attribute.attrelid = target
        and attribute.attnum > 0
        and not attribute.attisdropped
        and not attribute.atthasdef
        and attribute.attidentity = ''
        and reference.confrelid is distinct from target;

    execute format(
        'insert into %s (%s) select %s from generate_series(1, %s) as n',
        target,
        columns,
        expressions,
        row_count
    );
end
$function$;

create function pg_temp.fill_application(row_count integer)
returns void
language plpgsql
as $function$
declare
    target regclass;
begin
    for target in
        with recursive level (relation, depth) as (
            select
                tables.oid,
                0
            from pg_catalog.pg_class as tables
            where tables.relnamespace = 'public'::regnamespace
                and tables.relkind = 'r'

            union

            select
                reference.conrelid,
                level.depth + 1
            from level
            join pg_catalog.pg_constraint as reference
                on reference.confrelid = level.relation
                and reference.contype = 'f'
                and reference.conrelid <> reference.confrelid
            where level.depth < 100
        )
        select level.relation
        from level
        group by level.relation
        order by
            max(level.depth),
            level.relation
    loop
        perform pg_temp.fill_table(target, row_count);
    end loop;
    analyze;
end
$function$;
