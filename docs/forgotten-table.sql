-- pg-delta: transaction=false
-- Purpose: takes a large table that was forgotten through all phases: a migration of its own, dated after the one that creates the table.
--          Put your table for public.invoices, in the two places; several tables are several rows and several index lines.
-- Touches: org_id of the table's rows, its definition, its row in tenancy.registry; a table that has all of it stays as it is.
-- Locks:   those of the phase files: one table at a time for about a millisecond, rows of one batch, and none while it reads.
-- Undo:    tenancy.roll_back, with the other tables.

set search_path = '';
set lock_timeout = '1s';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

-- Tables that were renamed since, if this is not the first time.
select tenancy.note_tables();

-- org_from: the columns that decide, in order, as in the list of tables; null: as detected.
insert into tenancy.registry (schema_name, table_name, scope, priority, reason, org_from)
values
    ('public', 'invoices', 'org', 'secondary', null, null)
on conflict (schema_name, table_name) do update
set
    scope = excluded.scope,
    priority = excluded.priority,
    reason = excluded.reason,
    org_from = excluded.org_from;

select tenancy.assert_registry();

do $$ begin while tenancy.advance('count') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('backfill') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('invalid_index') loop commit; end loop; end $$;

-- One line per table over 8 MB (tenancy.settings.small_table_bytes), for a partitioned table one per such partition. A build waits for every older transaction, and holds nobody up.
set lock_timeout = 0;
create index concurrently if not exists idx_invoices_org_id on public.invoices (org_id);
set lock_timeout = '1s';

select tenancy.assert_org_id_indexes();
do $$ begin while tenancy.advance('index') loop commit; end loop; end $$;

do $$ begin while tenancy.advance('index_root') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key_valid') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key_root') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('leftovers') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('last_resort', 'check', 'last_resort') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('check_valid') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('not_null') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('guard') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('guard_move') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('guard_statement') loop commit; end loop; end $$;

select tenancy.assert_complete();
