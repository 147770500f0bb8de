-- pg-delta: transaction=false
-- Purpose: phase 2, foreign keys: org_id references organizations (id) on delete cascade, on every org-scoped table.
--          And, before that, the index of each partitioned table, which takes in those of its partitions and builds none.
-- Touches: one constraint per table, first not valid, then validated; no row. After the backfill, which it would slow by half.
-- Locks:   SHARE ROW EXCLUSIVE on organizations and the table for a millisecond; the validation lets reads and writes go on.
-- Undo:    tenancy.roll_back(1).

set search_path = '';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

do $$ begin while tenancy.advance('index_root') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key_valid') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('foreign_key_root') loop commit; end loop; end $$;
