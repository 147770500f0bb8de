-- pg-delta: transaction=false
-- Purpose: phase 6: once a row has its organization, nothing changes it: a guard on every org-scoped table.
-- Touches: one trigger per table, and two more per partitioned table; no row.
-- Locks:   SHARE ROW EXCLUSIVE on one table at a time for a millisecond: reads go on, writes wait that long.
-- Undo:    tenancy.roll_back(5).

set search_path = '';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

do $$ begin while tenancy.advance('guard') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('guard_move') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('guard_statement') loop commit; end loop; end $$;
