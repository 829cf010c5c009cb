. /tmp/s7/env.sh; cd /tmp/s10
python -u err.py 2 true,h3 10003,10004 5 300 120 >> err2.log 2>&1
python -u err.py 2 true,attention 10003,10004 1 300 120 >> err2.log 2>&1
python -u err.py 2 true,attention 10003,10004 25 300 120 >> err2.log 2>&1
