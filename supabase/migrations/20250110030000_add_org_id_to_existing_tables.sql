-- pg-delta: transaction=false
-- Purpose: phase 2, columns: org_id on every org-scoped table, nullable still, with public.auth_org_id() as its default.
-- Touches: each org-scoped table's definition; no row. With tenancy.user_orgs empty every existing row has its value after it.
-- Locks:   ACCESS EXCLUSIVE on one table at a time for about a millisecond; waits 100 ms at most, then lets others pass.
-- Undo:    tenancy.roll_back(1).

set search_path = '';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

do $$ begin while tenancy.advance('count') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('column', 'default') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('filler') loop commit; end loop; end $$;
