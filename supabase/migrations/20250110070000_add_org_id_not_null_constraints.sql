-- pg-delta: transaction=false
-- Purpose: phase 4: org_id is NOT NULL on every org-scoped table, by a validated CHECK and by the column itself.
-- Touches: the last rows without organization, then two constraints per table.
-- Locks:   ACCESS EXCLUSIVE for a millisecond, twice per table; the validation between lets reads and writes go on.
-- Undo:    tenancy.roll_back(3).

set search_path = '';
set statement_timeout = 0;
set client_connection_check_interval = '1s';

do $$ begin while tenancy.advance('leftovers') loop commit; end loop; end $$;
-- All tables refuse NULL within a second or so before the first long validation: a trigger that copies org_id from one table to
-- another would otherwise meet rows without it for as long as that takes. Last of all come the rows of the moment between.
do $$ begin while tenancy.advance('last_resort', 'check', 'last_resort') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('check_valid') loop commit; end loop; end $$;
do $$ begin while tenancy.advance('not_null') loop commit; end loop; end $$;
