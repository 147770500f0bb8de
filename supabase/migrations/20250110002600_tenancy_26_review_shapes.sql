-- Purpose: what is bound to the shape of a table's rows, and breaks with one column more: copies of whole rows, answers, set operations.
-- Touches: new objects in the schema tenancy only.
-- Locks:   none that anyone waits for.
-- Undo:    as tenancy_01_foundation.

set search_path = ''; set lock_timeout = '1s'; set statement_timeout = '1min';

create or replace view tenancy.review_shapes as
with recursive code as materialized (
    select
        application_functions.oid, application_functions.name, application_functions.kind, application_functions.is_parsed,
        application_functions.schema_names, function.prorettype, function.prorettype = 'record'::regtype and function.proallargtypes is null as is_record,
        function.proallargtypes is not null or row_type.is_own as has_columns,
        coalesce('org_id' = any (function.proargnames), false) or coalesce(row_type.has_org_id, false) as returns_org_id,
        regexp_replace(application_functions.source_with_text, '\s+', ' ', 'g') as line_with_text,
        -- RETURN QUERY EXECUTE is what it is given, TABLE t what it stands for, rows of t that are made of JSON have a name, and (r).* is r.*.
        regexp_replace(
            regexp_replace(
                regexp_replace(
                    concat_ws(
                        '; ', application_functions.line,
                        (
                            select string_agg('return query ' || regexp_replace(coalesce(given.part[1], given.part[2]), '\s+', ' ', 'g'), '; ')
                            from regexp_matches(
                                application_functions.source_with_text,
                                $re$\mreturn\s+query\s+execute\s+(?:format\s*\(\s*)?(?:e?'((?:[^']|'')*)'|\$\w*\$([^$]*)\$)$re$, 'gi'
                            ) as given (part)
                        )
                    ),
                    '(^ ?|[;()] ?|\m(?:query|union|all|except|intersect|as|atomic|begin) |\minto [\w$".]+ )table (?:only )?(?=[a-z_"])', '\1select * from ', 'gi'
                ),
                '\mjsonb?_populate_record(?:set)? ?\( ?(?:null ?:: ?|cast ?\( ?null as )(?:[\w$"]+ ?\. ?)?"?([\w$]+)"?(?: ?\))? ?,(?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)', '"rows of \1"', 'gi'
            ),
            '\( ?("[^"]+"|[a-z_$][\w$]*) ?\) ?\. ?\*', '\1.*', 'gi'
        ) as line
    from tenancy.application_functions
    left join pg_catalog.pg_proc as function on function.oid = application_functions.oid
    -- A type of its own, which no table has.
    left join lateral (
        select
            type.typtype = 'c' and class.relkind = 'c' as is_own,
            exists (select from pg_catalog.pg_attribute as column_ where column_.attrelid = class.oid and column_.attname = 'org_id') as has_org_id
        from pg_catalog.pg_type as type
        join pg_catalog.pg_class as class on class.oid = type.typrelid
        where type.oid = function.prorettype
    ) as row_type
        on true
),
member as materialized (
    select table_members.relation, table_members.root, application_tables.qualified_name as table_name
    from tenancy.table_members
    join tenancy.application_tables on application_tables.relation = table_members.root
    where table_members.scope = 'org'
),
mentioned as materialized (
    select distinct
        code.oid, code.name, code.schema_names, code.line, table_mentions.root, table_mentions.table_name, table_mentions.relname, table_mentions.pattern
    from tenancy.table_mentions
    join code
        on code.oid is not distinct from table_mentions.function
        and code.name = table_mentions.name
        and not code.is_parsed
    where not table_mentions.is_view
        -- A query under WITH that has the table's name, and lists columns, is not the table.
        and not (
            table_mentions.pattern not like '%\.%'
            and code.line ~* format('%s as (?:(?:not )?materialized )?\( ?select (?!(?:[\w$"]+ ?\. ?)?\*)', table_mentions.pattern)
        )
),
-- What has all columns of a table in a function: the table, the tables of a trigger, a trigger's or an argument's row, and what is made of all of
-- one of these: a query, a table of the session, a loop's rows, a variable.
whole (oid, name, schema_names, line, root, table_name, relname, pattern, is_relation) as (
    select base.*
    from (
        select mentioned.*, true
        from mentioned
        union
        select code.oid, code.name, code.schema_names, code.line, member.root, member.table_name, its.name, format('"?%s"?(?![\w$"])', its.name), true
        from member
        join pg_catalog.pg_trigger on pg_trigger.tgrelid = member.relation
        cross join lateral (values (pg_trigger.tgoldtable::text), (pg_trigger.tgnewtable::text)) as its (name)
        join code on code.oid = pg_trigger.tgfoid
        where its.name is not null
        union
        select code.oid, code.name, code.schema_names, code.line, given.root, given.table_name, null, format('(?:old|new|\$\d+%s)', '|' || given.name), false
        from (
            select pg_trigger.tgfoid as function, member.root, member.table_name, null as name
            from member
            join pg_catalog.pg_trigger on pg_trigger.tgrelid = member.relation
            union
            select function.oid, member.root, member.table_name, substring(function.proargnames[argument.position] from '^\w+$')
            from code as of_row
            join pg_catalog.pg_proc as function on function.oid = of_row.oid
            cross join unnest(function.proargtypes::oid[]) with ordinality as argument (type, position)
            join pg_catalog.pg_type as type on type.oid = argument.type
            join member on member.relation = type.typrelid
        ) as given
        join code
            on code.oid = given.function
            and not code.is_parsed
        union
        select
            code.oid, code.name, code.schema_names, code.line, member.root, member.table_name, 'rows of ' || class.relname,
            format('"rows of %s"', regexp_replace(class.relname, '(\W)', '\\\1', 'g')), form.is_relation
        from code
        cross join lateral regexp_matches(code.line, '"rows of ([^"]+)"', 'g') as made (part)
        join pg_catalog.pg_class as class on class.relname in (made.part[1], lower(made.part[1]))
        join member on member.relation = class.oid
        cross join (values (true), (false)) as form (is_relation)
        where not code.is_parsed
    ) as base
    union
    select
        whole.oid, whole.name, whole.schema_names, whole.line, whole.root, whole.table_name,
        lower(trim(both '"' from made.part[1])), format('"?%s"?(?![\w$"])', regexp_replace(trim(both '"' from made.part[1]), '(\W)', '\\\1', 'g')), form.is_relation
    from whole
    cross join (
        values
            ('{name} as (?:(?:not )?materialized )?\( ?select {all} from (?:only )?{table}', true),
            ('{name} as (?:(?:not )?materialized )?\( ?delete from (?:only )?{table}[^;]* returning \*', true),
            ('\( ?select {all} from (?:only )?{table}[^()]*\) ?(?:as )?(?!(?:union|except|intersect|where|order|limit|select|insert|then)\M){name}', true),
            ('\mcreate (?:temp |temporary |unlogged )?table (?:if not exists )?{name}(?: on commit (?:drop|preserve rows|delete rows))? as \(?select {all} from (?:only )?{table}', true),
            ('\mfor {name} in select {all} from (?:only )?{table}', false),
            ('\mselect {all} into (?:strict )?{name} from (?:only )?{table}', false),
            ('\mselect {all} from (?:only )?{table}[^;]* into (?:strict )?{name}', false),
            ('\m(?:delete from|update|insert into) (?:only )?{table}[^;]* returning {all} into (?:strict )?{name}', false)
    ) as form (text, is_relation)
    cross join lateral regexp_matches(
        whole.line,
        replace(replace(replace(form.text, '{name}', '("[^"]+"|[a-z_][\w$]*)'), '{all}', '(?:[\w$"]+ ?\. ?)?\*'), '{table}', whole.pattern), 'gi'
    ) as made (part)
    where whole.is_relation
        -- A variable of a type of its own has the columns of that.
        and (
            form.is_relation
            or whole.line !~* format('(?<![\w$])%s (?!record\M|%s)[\w$".]+(?:%%rowtype)? ?;', regexp_replace(made.part[1], '(\W)', '\\\1', 'g'), whole.pattern)
        )
),
copy as materialized (
    select
        whole.name, whole.schema_names, whole.root, whole.table_name, copied.part[1] as target, copied.part[2] as column_list, copied.part[3] as items,
        case when copied.part[1] like '%\%%' then '{""}' else parse_ident(copied.part[1]) end as names
    from whole
    cross join lateral (
        select part
        from regexp_matches(
            whole.line,
            case
                when whole.is_relation then
                    '\minsert into ((?:[\w$"]+ ?\. ?)?[\w$"]+) ?(\((?! ?select\M)[^()]*\))? ?\(? ?select ((?:[^;]*, ?)?(?:[\w$"]+ ?\. ?)?\*(?: ?,[^;]*)?) from (?:\( ?select (?:[\w$"]+ ?\. ?)?\* from )?(?:only )?'
                    || whole.pattern
                else
                    '\minsert into ((?:[\w$"%]+ ?\. ?)?[\w$"%]+) ?(\([^()]*\))? ?(?:values ?\(|select )((?:[^;()]|\([^()]*\))*)'
            end, 'gi'
        ) as part
        union all
        select array[found.part[1], found.part[3], found.part[4]]
        from regexp_matches(
            whole.line,
            '\mmerge into (?:only )?((?:[\w$"]+ ?\. ?)?[\w$"]+)(?: as)?(?: [\w$"]+)? using (?:\([^()]*\) ?(?:as )?)?(?:only )?' || whole.pattern
                || '(?: ?(?:as )?(?!on\M)"?([\w$]+)"?)? on [^;]*\mthen insert ?(\([^()]*\))? ?values ?\(((?:[^;()]|\([^()]*\))*)', 'gi'
        ) as found (part)
        where whole.is_relation
            and found.part[4] ~* format('(?:^|,) ?\(?"?%s"?\)? ?\. ?\*', regexp_replace(coalesce(found.part[2], whole.relname), '(\W)', '\\\1', 'g'))
    ) as copied
    where (whole.is_relation or copied.part[3] ~* format('(?:^|,) ?\(?%s\)? ?\. ?\*', replace(whole.pattern, '(?![\w$"])', '')))
        -- Not into a table that is made like it, or of it.
        and whole.line !~* format(
            '\mcreate (?:temp |temporary |unlogged )?table (?:if not exists )?%s[^;(]*(?:\( ?like|\mas \(?select (?:[\w$"]+ ?\. ?)?\* from) (?:[\w$"]+ ?\. ?)?"?%s"?(?![\w$"])',
            regexp_replace(copied.part[1], '(\W)', '\\\1', 'g'), regexp_replace(trim(both '"' from regexp_replace(whole.table_name, '^.*\.', '')), '(\W)', '\\\1', 'g')
        )
),
org_id_place as materialized (
    select
        column_.attrelid as relation,
        (
            select count(*) from pg_catalog.pg_attribute as before
            where before.attrelid = column_.attrelid and before.attnum between 1 and column_.attnum and not before.attisdropped
        ) as place
    from pg_catalog.pg_attribute as column_
    where column_.attname = 'org_id'
),
-- What a function answers with: the last statement of SQL, RETURN QUERY of plpgsql, without what is in parentheses.
answer as materialized (
    select
        code.oid, code.name, code.line, code.prorettype, code.is_record, code.has_columns, code.returns_org_id, code.is_parsed, flat.statement,
        coalesce(
            (regexp_match(flat.statement, '\mreturning (.*)$', 'i'))[1],
            (regexp_match(flat.statement || ' from ', '(?:\mselect (?:distinct )?(.*) from ){1,1}?', 'i'))[1]
        ) as column_list
    from code
    cross join lateral (
        select (regexp_matches(code.line, '\mreturn query ((?:select|with|insert|update|delete)\M[^;]*)', 'gi'))[1]
        union all
        select (regexp_match(code.line, '(?:^|;|atomic) ?((?:select|with|insert|update|delete)\M[^;]*)(?:;? ?(?:end)? ?)$', 'i'))[1]
        where code.line !~* '\mreturn query\M'
    ) as said (statement)
    cross join lateral (
        select regexp_replace(
            regexp_replace(regexp_replace(said.statement, '\([^()]*\)', ' ', 'g'), '\([^()]*\)', ' ', 'g'), '\([^()]*\)', ' ', 'g'
        )
    ) as flattened (text)
    -- Each query of a UNION has the same shape.
    cross join lateral regexp_split_to_table(flattened.text, '\m(union|except|intersect)( all)?\M', 'i') as flat (statement)
    where code.kind = 'function' and said.statement is not null
)
-- Whole rows have one column more, and where they go to has not, or has it elsewhere.
select distinct
    'whole_rows_copied' as code, 'breaks' as severity, copy.name as object, copy.table_name,
    format(
        'probably inserts all columns of %s into %s%s', copy.table_name,
        case when copy.target like '%\%%' then 'a table that it names as it runs' else copy.target end,
        case
            when into_.has_org_id and copy.column_list is null then ', with org_id where that has another column'
            else ', org_id with them, which is not among the columns there'
        end
    ) as problem,
    format('name the columns in %s, on both sides', copy.name) as remedy
from copy
cross join lateral (
    -- Of several tables that the name may mean, any.
    select
        coalesce(bool_or(org_scoped.root is not null or column_.place is not null), false) as has_org_id,
        -- Where both had it before, in the same place.
        coalesce(bool_or(column_.place = source.place), false) as is_alike
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    left join org_id_place as column_ on column_.relation = class.oid
    left join org_id_place as source on source.relation = copy.root
    left join member as org_scoped on org_scoped.relation = class.oid
    where class.relname = copy.names[array_upper(copy.names, 1)]
        and class.relkind in ('r', 'p')
        and case when array_length(copy.names, 1) = 2 then namespace.nspname = copy.names[1] else namespace.nspname = any (copy.schema_names) end
) as into_
where coalesce(copy.column_list !~* '\morg_id\M', true)
    -- Where both get org_id as their last column, both have it there.
    and not (copy.column_list is null and (into_.is_alike or into_.has_org_id and copy.items ~ '\* ?$'))
union all
select distinct
    'function_row_shape', 'breaks', answer.name, root.qualified_name,
    format('%sreturns too few columns: it returns rows of %s, and lists columns', case when not answer.is_parsed then 'probably ' end, root.qualified_name),
    format('select * in %s, or name org_id last', answer.name)
from answer
join pg_catalog.pg_type as returned on returned.oid = answer.prorettype
join pg_catalog.pg_type as row_type on row_type.oid in (returned.oid, returned.typelem)
join member on member.relation = row_type.typrelid
join tenancy.application_tables as root on root.relation = member.root
where answer.column_list like '%,%'
    and answer.column_list !~ '(^|[.,]) ?\*'
    and answer.column_list !~* '\morg_id\M'
union all
select distinct
    'function_row_shape', 'breaks', answer.name, whole.table_name,
    format(
        'probably returns too many columns: all of %s, and %s says which it returns', whole.table_name,
        case when answer.is_record then 'whoever calls it' else 'it' end
    ),
    format(
        'name the columns in %s, or %s', answer.name,
        case when answer.is_record then 'org_id in every list at its calls' else 'drop it and create it with org_id among those that it returns' end
    )
from answer
join whole on whole.oid = answer.oid
cross join lateral regexp_matches(answer.column_list, '(?:^|,) ?(?:"?((?:rows of )?[\w$]+)"? ?\. ?)?\*', 'g') as star (part)
where (answer.has_columns or answer.is_record)
    and not answer.returns_org_id
    and not answer.is_parsed
    and case
        -- All of a row is all of its columns, too.
        when not whole.is_relation then answer.column_list ~* format('(?:^|,) ?%s ?\. ?\*', replace(whole.pattern, '(?![\w$"])', ''))
        else answer.statement ~* concat(
            '(\m(from|join|update|insert into) +(lateral +)?(only |as )?|, ?)', whole.pattern,
            case when lower(star.part[1]) <> whole.relname then format(' (as )?"?%s"?(?![\w$"])', star.part[1]) end
        )
        -- Or all columns of a query of all columns that has no name.
        or answer.column_list ~ '^ ?\*' and answer.line ~* ('\mfrom \( ?select ([\w$"]+ ?\. ?)?\* from (only )?' || whole.pattern)
    end
union all
-- By EXECUTE, of a table whose name stands elsewhere in the text, or is that of the trigger.
select distinct
    'whole_rows_copied', 'breaks', code.name, member.table_name,
    format('probably inserts all columns of a table that it names as it runs, which may be %s', member.table_name),
    format('name the columns in %s, on both sides', code.name)
from code
cross join lateral regexp_matches(
    code.line_with_text, $re$\minsert into ([\w$".]*)[^;]*\mselect (?:[\w$"]+ ?\. ?)?\*(?: ?,[^;]*)? from (?:only )?(?:[\w$"]+ ?\. ?)?(?:%|' ?\|\|)$re$, 'gi'
) as run (part)
cross join lateral (
    select parse_ident(named.part[1]) as names, null::oid as relation
    from regexp_matches(code.line_with_text, $re$'((?:[a-z_][\w$]*\.)?[a-z_][\w$]*)'$re$, 'gi') as named (part)
    union
    select null, pg_trigger.tgrelid
    from pg_catalog.pg_trigger
    where pg_trigger.tgfoid = code.oid and code.line_with_text ~* '\mtg_(relid|table_name|relname)\M'
) as meant
join member on true
join pg_catalog.pg_class as class on class.oid = member.relation
where code.line_with_text ~* '\mexecute\M'
    and code.line_with_text !~* '\mcreate [^;]*\( ?like\M'
    -- Into one that gets org_id as its last column, too.
    and not exists (
        select from member as copied
        join pg_catalog.pg_class as into_ on into_.oid = copied.relation
        where run.part[1] ~* format('(^|\.)"?%s"?$', regexp_replace(into_.relname, '(\W)', '\\\1', 'g'))
    )
    and (
        member.relation = meant.relation
        or class.relname = meant.names[array_upper(meant.names, 1)]
        and (array_length(meant.names, 1) = 1 or class.relnamespace = to_regnamespace(quote_ident(meant.names[1])))
    )
union all
-- Text that is to be a row.
select distinct
    'function_row_shape', 'breaks', code.name, member.table_name,
    format('probably makes rows of %s of text or of a ROW, and a column is missing in them', member.table_name),
    format('add org_id to it in %s, or take jsonb_populate_record', code.name)
from code
cross join lateral regexp_matches(
    code.line_with_text,
    replace(
        $re$(?:{row} ?:: ?|\mcast ?\( ?{row} as )((?:[\w$"]+ ?\. ?)?[\w$"]+)(?! ?\[)$re$, '{row}',
        $re$(?:'\([^']*\)'|\m(?:format|concat|concat_ws|row) ?\((?:[^()]|\([^()]*\))*\))$re$
    ), 'gi'
) as made (part)
cross join lateral parse_ident(made.part[1], false) as names
join pg_catalog.pg_class as class on class.relname = names[array_upper(names, 1)]
join pg_catalog.pg_namespace as namespace
    on namespace.oid = class.relnamespace
    and case when array_length(names, 1) = 2 then namespace.nspname = names[1] else namespace.nspname = any (code.schema_names) end
join member on member.relation = class.oid
where not code.is_parsed
    and code.line_with_text !~* format('\mrow ?\((?:[^()]|\([^()]*\))*(\morg_id\M|\*)(?:[^()]|\([^()]*\))*\) ?(::| as) ?%s', regexp_replace(made.part[1], '(\W)', '\\\1', 'g'))
union all
-- A row that is made column by column.
select distinct
    'function_row_shape', 'breaks', code.name, member.table_name,
    format('probably makes rows of %s column by column, and one is missing', member.table_name),
    format('add org_id to the ROW (…) in %s, or select from the table', code.name)
from code
join pg_catalog.pg_type as returned on returned.oid = code.prorettype
join pg_catalog.pg_type as row_type on row_type.oid in (returned.oid, returned.typelem)
join member on member.relation = row_type.typrelid
cross join lateral regexp_matches(code.line, '\mreturn row ?\(((?:[^()]|\([^()]*\))*)\) ?;', 'gi') as made (part)
where not code.is_parsed
    and made.part[1] !~* '(\morg_id\M|\*)'
union all
select distinct
    'function_row_shape', 'breaks', code.name, member.table_name,
    format('probably makes the row of %s column by column as a trigger, and one is missing', member.table_name),
    format('set the columns that change in %s, as new.… := …', code.name)
from code
join pg_catalog.pg_trigger on pg_trigger.tgfoid = code.oid
join member on member.relation = pg_trigger.tgrelid
cross join lateral regexp_matches(
    code.line, '(?:\mnew ?:= ?|\mreturn )(?:row ?)?\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\) ?(?:;|::)', 'gi'
) as made (part)
where made.part[1] !~* '(\morg_id\M|\*)'
    and regexp_replace(made.part[1], '\((?:[^()]|\([^()]*\))*\)', '', 'g') ~ ','
union all
-- Each query of a UNION has as many columns.
select distinct
    'function_row_shape', 'breaks', whole.name, whole.table_name,
    format('probably puts all columns of %s together with those of another query, which has no org_id (UNION, EXCEPT, INTERSECT)', whole.table_name),
    format('name the columns in %s, on both sides', whole.name)
from whole
cross join (
    values
        ('{all}{table}{rest} {set} \(? ?{some}'), ('{some}{rest} {set} \(? ?{all}{table}')
) as form (text)
cross join lateral regexp_matches(
    -- Without what stands in parentheses and reads nothing.
    regexp_replace(whole.line, '\((?!(?: ?select|[^()]* from)\M)[^()]*\)', '', 'gi'),
    replace(replace(replace(replace(replace(
        form.text,
        '{all}', '\mselect (?:distinct )?(?:[\w$"]+ ?\. ?)?\* from (?:only )?'),
        '{some}', '\mselect (?:distinct )?((?:(?! from )[^;()])*) from (?:only )?([\w$"]+(?: ?\. ?[\w$"]+)?)'),
        '{rest}', '(?:(?! (?:union|except|intersect) )[^;()])*'),
        '{set}', '(?:union|except|intersect)(?: all| distinct)?'),
        '{table}', whole.pattern
    ), 'gi'
) as other (part)
cross join lateral (
    select coalesce(bool_and(org_scoped.root is null and column_.place is null), false) as lacks_org_id
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    cross join lateral parse_ident(other.part[2]) as names
    left join org_id_place as column_ on column_.relation = class.oid
    left join member as org_scoped on org_scoped.relation = class.oid
    where class.relname = names[array_upper(names, 1)]
        and case when array_length(names, 1) = 2 then namespace.nspname = names[1] else namespace.nspname = any (whole.schema_names) end
) as another
where whole.is_relation
    and case when other.part[1] ~ '\*' then another.lacks_org_id else other.part[1] !~* '\morg_id\M' end
    -- Where it says what it answers with, that has been said.
    and not exists (
        select from answer
        where answer.oid = whole.oid and answer.has_columns and not answer.returns_org_id and answer.column_list ~ '\*'
    );
comment on view tenancy.review_shapes is
'The part of tenancy.review_breaks that is about the shape of rows: what has all columns of an org-scoped table, and breaks with one more.';
